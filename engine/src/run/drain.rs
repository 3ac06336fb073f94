//! Draining: a run ends its step, saves it, and stops there, to be gone on with later.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    Outcome,
    driver::{Driver, RunEnd},
    error::RunError,
};
use crate::{
    node::{Context, RunContext},
    state::State,
};

/// A handle that drains runs, as a server does before it stops. Clones drain the same.
///
/// Running tasks finish, the step is saved, and the run ends as [`Outcome::Drained`]; a run with nothing left to do is
/// done. Graphs inside stop at the end of their own steps. A drained run counts as cut off:
/// [`Graph::unfinished`](crate::Graph::unfinished) finds it, and `resume` goes on. What must stop at once is
/// [cancelled](crate::Cancel) instead, or later.
///
/// ```
/// # use stepgraph::{Drain, Graph, Outcome, State, ThreadKey};
/// # async fn work<S: State>(graph: Graph<S>, thread: &ThreadKey, input: S::Input) -> Result<(), stepgraph::RunError> {
/// let drain = Drain::new();
/// // Somewhere else, when the process is asked to stop: `drain.request()`.
/// if let Outcome::Drained = graph.run(thread, input).drain(&drain).await? {
///     // The next process resumes what `graph.unfinished` lists.
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<AtomicBool>);

impl Drain {
    /// A handle that drains nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Drains every run that was given this handle, at any depth, and each that is given it later.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has been used.
    #[must_use]
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl RunContext {
    /// Whether this run or one around it is to stop at the end of its step.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        let mut next = Some(self);
        while let Some(run) = next {
            if run.drain.as_ref().is_some_and(Drain::is_requested) {
                return true;
            }
            next = run.outer.as_ref().map(|host| &*host.run);
        }
        false
    }
}

impl<E: Send + 'static> Context<E> {
    /// Whether the run is to stop at the end of this step: a node that could work on for long may return what it has.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.task.run.is_draining()
    }
}

impl<S: State> Driver<S> {
    /// Ends the run between two steps. Its mark says that it runs: whoever looks for what was cut off finds it.
    pub(super) async fn drained(&self) -> Result<RunEnd<S>, RunError> {
        self.settle().await?;
        Ok(RunEnd::Outcome(Outcome::Drained))
    }
}
