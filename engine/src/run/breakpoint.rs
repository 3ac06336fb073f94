//! Breakpoints: places where a run stops on purpose, to be looked at and gone on with.

use std::borrow::Cow;

use super::plan::Seed;
use crate::graph::Topology;

/// Nodes before or after whose step a run stops. A run without new input never stops before its first step, so that
/// resuming a run that has stopped goes on.
///
/// ```
/// use stepgraph::Breakpoints;
///
/// let review = Breakpoints::none().before(["publish"]).after(["draft"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Breakpoints {
    pub(crate) before: Nodes,
    pub(crate) after: Nodes,
}

/// Names of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nodes(Vec<Cow<'static, str>>);

impl<N: Into<Cow<'static, str>>> FromIterator<N> for Nodes {
    fn from_iter<I: IntoIterator<Item = N>>(nodes: I) -> Self {
        Self(nodes.into_iter().map(Into::into).collect())
    }
}

impl Nodes {
    pub(crate) fn matches<P>(&self, topology: &Topology, tasks: &[Seed<P>]) -> bool {
        !self.0.is_empty() && tasks.iter().any(|task| self.0.contains(topology.name(task.node)))
    }
}

impl Breakpoints {
    /// Those of a run: the graph's own where it does not say otherwise.
    #[inline]
    pub(super) fn unless_said(&self, before: Option<Nodes>, after: Option<Nodes>) -> Self {
        // Most graphs have none.
        let or_own = |said: Option<Nodes>, own: &Nodes| match said {
            None if own.0.is_empty() => Nodes::default(),
            None => own.clone(),
            Some(said) => said,
        };
        Self {
            before: or_own(before, &self.before),
            after: or_own(after, &self.after),
        }
    }

    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Stops before a step that would run one of these nodes; none of the step's tasks runs.
    pub fn before<N: Into<Cow<'static, str>>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.before.0.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Stops after a step that has run one of these nodes; what it did is saved.
    pub fn after<N: Into<Cow<'static, str>>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.after.0.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Every node that is named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Cow<'static, str>> {
        self.before.0.iter().chain(&self.after.0)
    }
}

/// At which breakpoint a run has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Before a step with tasks of these nodes.
    Before(Vec<Cow<'static, str>>),
    /// After a step with tasks of these nodes.
    After(Vec<Cow<'static, str>>),
    /// A graph inside a node has stopped at one of its own.
    Inside,
}
