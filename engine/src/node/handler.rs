//! What a handler is given.

use std::{any::Any, borrow::Cow, fmt, sync::Arc};

use super::Failure;
use crate::graph::Payload;

/// What a handler is given: how the task failed, and the view of the state that it had.
pub struct Failed<I> {
    /// The state as it was when the step began, or a view of it.
    pub input: I,
    caught: Arc<Caught>,
}

/// A failure on its way to its handler.
pub(crate) struct Caught {
    /// Name of the node that failed.
    pub(crate) node: Cow<'static, str>,
    /// Its task.
    pub(crate) task: String,
    pub(crate) failure: Failure,
    pub(crate) payload: Option<Payload>,
}

/// Name of a handler's task: its own, and behind it the task whose failure it handles.
pub(crate) fn handler_task(handler: &str, task: &str) -> String {
    format!("{handler}#{task}")
}

impl<I> Failed<I> {
    pub(crate) const fn new(input: I, caught: Arc<Caught>) -> Self {
        Self { input, caught }
    }

    /// Name of the node that failed: one handler may serve several.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.caught.node
    }

    /// The task that failed: the node's name, and `#` with the number of the send behind it for a worker.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.caught.task
    }

    /// How it failed.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.caught.failure
    }

    /// What the failed task was fed with: for a worker the item of its fan-out, if it is a `T`.
    #[must_use]
    pub fn payload<T: Any>(&self) -> Option<&T> {
        self.caught.payload.as_ref().and_then(|payload| payload.downcast_ref())
    }
}

impl<I: Clone> Clone for Failed<I> {
    fn clone(&self) -> Self {
        Self {
            input: self.input.clone(),
            caught: Arc::clone(&self.caught),
        }
    }
}

/// What the task was given is left out: it may be secret.
impl<I> fmt::Debug for Failed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed")
            .field("task", &self.caught.task)
            .field("failure", &self.caught.failure)
            .finish_non_exhaustive()
    }
}
