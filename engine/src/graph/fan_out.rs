//! What becomes of the items of a fan-out that fail.

use std::{borrow::Cow, fmt};

use super::{
    builder::GraphBuilder,
    id::{AnyNode, Slot, WorkerId},
};
use crate::state::State;

/// What becomes of an item of a fan-out whose worker fails for good: after its policy's last attempt.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use stepgraph::{Append, Graph, NodeError, START, END, State};
/// use stepgraph::FanOutPolicy;
///
/// #[derive(State, Clone, Serialize, Deserialize)]
/// struct Grades {
///     #[state(input)]
///     essays: Vec<String>,
///     #[state(reducer = Append)]
///     failed: Vec<String>,
/// }
///
/// let mut g = Graph::<Grades>::builder("grades");
/// let grade = g.worker("grade", |essay: String| async move {
///     if essay.is_empty() { Err(NodeError::terminal("nothing to grade")) } else { Ok(()) }
/// });
/// g.fan_out(START, grade, |grades: &Grades| grades.essays.clone()).edge(grade, END);
/// g.fan_out_policy(grade, FanOutPolicy::collect(|failure| {
///     Grades::update().failed([format!("{}: {}", failure.index, failure.message)])
/// }));
/// # g.build()?;
/// # Ok::<(), stepgraph::BuildErrors>(())
/// ```
#[must_use = "a policy is given to `fan_out_policy`"]
pub struct FanOutPolicy<S: State>(pub(crate) OnItemFailure<S>);

pub(crate) enum OnItemFailure<S: State> {
    Fail,
    Skip,
    Collect(Box<dyn Fn(ItemError) -> S::Update + Send + Sync>),
}

impl<S: State> FanOutPolicy<S> {
    /// It fails the run, which is the default. The other items are kept, and a resume runs this one again.
    pub const fn fail() -> Self {
        Self(OnItemFailure::Fail)
    }

    /// Its task counts as finished and has written nothing.
    pub const fn skip() -> Self {
        Self(OnItemFailure::Skip)
    }

    /// Its task counts as finished and has written what `collect` makes of the failure.
    pub fn collect(collect: impl Fn(ItemError) -> S::Update + Send + Sync + 'static) -> Self {
        Self(OnItemFailure::Collect(Box::new(collect)))
    }
}

impl<S: State> fmt::Debug for FanOutPolicy<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            OnItemFailure::Fail => "fail",
            OnItemFailure::Skip => "skip",
            OnItemFailure::Collect(_) => "collect",
        })
    }
}

/// Why an item of a fan-out failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("item {index} of `{node}` failed after {attempts} attempt(s): {message}")]
#[non_exhaustive]
pub struct ItemError {
    /// Its number among all items that were sent in its step, from 0: those of a single fan-out in their order.
    pub index: u32,
    /// The worker.
    pub node: Cow<'static, str>,
    /// What the worker said.
    pub message: String,
    /// Stable code of the error: of a graph inside the worker its own, else one of `node::timeout`, `node::panic` and
    /// `node::error`.
    pub code: &'static str,
    /// How often it was tried.
    pub attempts: u32,
}

impl<S: State> GraphBuilder<S> {
    /// Says what becomes of a worker's items that fail for good, whichever fan-out they come from. The decision is kept as
    /// the task's result: after a crash the item does not run again.
    pub fn fan_out_policy<I>(&mut self, worker: WorkerId<S, I>, policy: FanOutPolicy<S>) -> &mut Self {
        if let Some(slot) = self.own(worker.slot()) {
            self.set_fan_out_policy(slot, policy);
        }
        self
    }

    pub(crate) fn set_fan_out_policy(&mut self, slot: Slot, policy: FanOutPolicy<S>) {
        if let Some(node) = self.nodes.get_mut(slot.index) {
            node.on_failure = policy.0;
        }
    }
}
