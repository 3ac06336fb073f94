//! A node under way. What it gives stays where the node itself has stood, until it is merged: an update is as large as its
//! state has fields, and moving it costs more than the rest of a step.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as Poller, Poll, ready},
};

use pin_project_lite::pin_project;

use super::Output;
use crate::{node::NodeError, state::State};

/// A node that was entered.
pub(crate) struct Running<S: State>(Pin<Box<dyn Work<S>>>);

trait Work<S: State>: Send {
    /// What it has given, once it has.
    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<&mut Output<S>, NodeError>>;

    fn output(self: Pin<&mut Self>) -> Option<&mut Output<S>>;

    fn take(self: Pin<&mut Self>) -> Option<Output<S>>;
}

pin_project! {
    #[project = Stage]
    enum Task<F, M, S>
    where
        S: State,
    {
        Runs { #[pin] node: F, make: M },
        Gave { output: Output<S> },
        Over,
    }
}

impl<S: State, O, F, M> Work<S> for Task<F, M, S>
where
    F: Future<Output = Result<O, NodeError>> + Send,
    M: Fn(O) -> Output<S> + Send,
{
    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<&mut Output<S>, NodeError>> {
        if let Stage::Runs { node, make } = self.as_mut().project() {
            match ready!(node.poll(cx)) {
                Ok(given) => {
                    let output = make(given);
                    self.set(Self::Gave { output });
                }
                Err(error) => {
                    self.set(Self::Over);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(self.output().ok_or_else(lost))
    }

    fn output(self: Pin<&mut Self>) -> Option<&mut Output<S>> {
        match self.project() {
            Stage::Gave { output } => Some(output),
            Stage::Runs { .. } | Stage::Over => None,
        }
    }

    fn take(self: Pin<&mut Self>) -> Option<Output<S>> {
        let output = self.output()?;
        Some(std::mem::replace(output, Output::of(S::Update::default())))
    }
}

impl<S: State> Running<S> {
    /// A node whose future gives the output itself.
    pub(crate) fn of(node: impl Future<Output = Result<Output<S>, NodeError>> + Send + 'static) -> Self {
        Self::made(node, std::convert::identity)
    }

    /// A node of whose result `make` makes the output.
    pub(crate) fn made<O: 'static>(
        node: impl Future<Output = Result<O, NodeError>> + Send + 'static,
        make: impl Fn(O) -> Output<S> + Send + 'static,
    ) -> Self {
        Self(Box::pin(Task::Runs { node, make }))
    }

    /// Lets it go on. Once it has given its output, it is there.
    #[inline]
    pub(crate) fn go_on(&mut self, cx: &mut Poller<'_>) -> Poll<Result<&mut Output<S>, NodeError>> {
        self.0.as_mut().poll(cx)
    }

    /// What it has given.
    pub(crate) fn output(&mut self) -> Option<&mut Output<S>> {
        self.0.as_mut().output()
    }

    /// The same, taken out of it.
    pub(crate) fn take(&mut self) -> Result<Output<S>, NodeError> {
        self.0.as_mut().take().ok_or_else(lost)
    }
}

fn lost() -> NodeError {
    NodeError::terminal("a node was asked for its output before it had given any")
}

impl<S: State> Future for Running<S> {
    type Output = Result<Output<S>, NodeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        ready!(self.go_on(cx))?;
        Poll::Ready(self.take())
    }
}
