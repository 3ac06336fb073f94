//! What is doubtful about a graph.

use std::{borrow::Cow, time::Duration};

use super::{check::BuildError, parts::NodeSpec, rules::Rules};
use crate::state::State;

/// Something that is doubtful about a graph and does not keep it from running. It prints as the problem and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// What a typed graph would refuse and a dynamic one may mean.
    #[error(transparent)]
    Structure(BuildError),
    /// A node may be at its retries when the run's time is over.
    #[error(
        "node `{node}` may take {worst:?} with all its attempts and waits, longer than the graph's deadline of {deadline:?}: give it fewer or shorter ones, or raise `g.deadline`"
    )]
    RetriesOutlastDeadline {
        /// The node.
        node: Cow<'static, str>,
        /// How long all attempts may take with the waits between them.
        worst: Duration,
        /// The graph's deadline.
        deadline: Duration,
    },
    /// Two nodes that may run in the same step both say that they [write](crate::GraphBuilder::writes) a field that takes
    /// one write a step. Where both are one worker or one handler, its tasks are meant.
    #[error("{}", meeting(field, first, second))]
    ParallelWriters {
        /// The field.
        field: Cow<'static, str>,
        /// One writer.
        first: Cow<'static, str>,
        /// The other.
        second: Cow<'static, str>,
    },
}

impl Warning {
    /// Stable code; that of a structure is the same as that of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Structure(problem) => problem.code(),
            Self::RetriesOutlastDeadline { .. } => "graph::retries_outlast_deadline",
            Self::ParallelWriters { .. } => "graph::parallel_writers",
        }
    }
}

fn meeting(field: &str, first: &str, second: &str) -> String {
    if first == second {
        return format!(
            "several tasks of `{first}` may run in the same step and all write `{field}`, which takes one write a step: give the field a reducer that merges, or let a node after them write it"
        );
    }
    format!(
        "`{first}` and `{second}` may run in the same step and both write `{field}`, which takes one write a step: let one of them write it, lead one to the other, or give the field a reducer that merges"
    )
}

/// Policies that leave no room in the graph's deadline.
pub(super) fn of_policies<S: State>(names: &[Cow<'static, str>], nodes: &[NodeSpec<S>], rules: Rules) -> Vec<Warning> {
    let Some(deadline) = rules.deadline else {
        return Vec::new();
    };
    let worst = names
        .iter()
        .zip(nodes)
        .filter_map(|(name, node)| Some((name, node.policy.worst_case()?)));
    let late = worst.filter(|(_, worst)| *worst > deadline);
    late.map(|(name, worst)| Warning::RetriesOutlastDeadline {
        node: name.clone(),
        worst,
        deadline,
    })
    .collect()
}
