//! A run as a stream of its events.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    Outcome, Run,
    error::RunError,
    event::{Event, EventReader, EventSender, Extra, ReaderGone, events},
};
use crate::state::State;

/// An item of a [`RunStream`].
#[derive(Debug)]
#[non_exhaustive]
pub enum RunEvent<S: State> {
    /// Something happened.
    Event(Event<S>),
    /// The run has come to this; nothing follows.
    Ended(Outcome<S>),
}

type Running<S> = Pin<Box<dyn Future<Output = Result<Outcome<S>, RunError>> + Send>>;

/// The events of a run, then its outcome or its error. It outlives the graph's handle.
///
/// # Cancel safety
/// Polling it drives the run; dropping it stops the run where it is, as dropping [`Run`] does.
#[must_use = "a stream runs while it is polled"]
pub struct RunStream<S: State> {
    running: Option<Running<S>>,
    ended: Option<Result<Outcome<S>, RunError>>,
    reader: EventReader<S>,
}

/// Events that wait to be read before the run is slowed down.
const STREAM_CAPACITY: usize = 64;

impl<S: State> RunStream<S> {
    pub(super) fn new(run: Run<S>, extras: impl IntoIterator<Item = Extra>) -> Self {
        let (sender, reader) = events(STREAM_CAPACITY, ReaderGone::Finish);
        let sender = extras.into_iter().fold(sender, EventSender::with);
        Self {
            running: Some(run.events(sender).into_future()),
            ended: None,
            reader,
        }
    }
}

impl<S: State> fmt::Debug for RunStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStream")
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

impl<S: State> Unpin for RunStream<S> {}

impl<S: State> Stream for RunStream<S> {
    type Item = Result<RunEvent<S>, RunError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(running) = &mut self.running
            && let Poll::Ready(end) = running.as_mut().poll(cx)
        {
            self.running = None;
            self.ended = Some(end);
        }
        if self.running.is_none() {
            // Not by polling: tokio may say `Pending` to let others run, and what waits would be lost.
            return Poll::Ready(match self.reader.try_next() {
                Some(event) => Some(Ok(RunEvent::Event(event))),
                None => self.ended.take().map(|end| end.map(RunEvent::Ended)),
            });
        }
        match Pin::new(&mut self.reader).poll_next(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(Some(Ok(RunEvent::Event(event)))),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
