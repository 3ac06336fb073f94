//! Where an error happened, whichever it is.

use super::RunError;
use crate::{checkpoint::Seq, id::ThreadKey};

impl RunError {
    /// The task that it is about, if it is about one: its node's name, and for a worker `#` with the number of its item behind
    /// it. Of two, the first.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::Node { task, .. } | Self::UndeclaredWrite { task, .. } => Some(task),
            Self::Handler { handler, .. } => Some(handler),
            Self::StepTimeout { tasks, .. } => tasks.first().map(String::as_str),
            Self::Conflict { first, .. } => Some(first),
            Self::UnknownTarget { from, .. } => Some(from),
            Self::Panic { task, .. } => task.as_deref(),
            Self::AmbiguousUpdate { .. }
            | Self::UnknownNode { .. }
            | Self::UnknownField { .. }
            | Self::NoCheckpoint { .. }
            | Self::NoParent { .. }
            | Self::StepLimit { .. }
            | Self::TimeLimit { .. }
            | Self::NotDurable { .. }
            | Self::Budget { .. }
            | Self::NoBudgetNode { .. }
            | Self::Busy { .. }
            | Self::Pending { .. }
            | Self::BranchExists { .. }
            | Self::UnknownBranch { .. }
            | Self::UnknownThread { .. }
            | Self::NoCheckpointer { .. }
            | Self::UnknownQuestion { .. }
            | Self::AmbiguousAnswer { .. }
            | Self::Missing { .. }
            | Self::Incompatible { .. }
            | Self::OtherVersion { .. }
            | Self::RecordedExit
            | Self::NotRecorded { .. }
            | Self::State(_)
            | Self::Checkpoint(_) => None,
        }
    }

    /// The node that it is about, if it is about one: that of its [`task`](Self::task), and for a handler the node whose
    /// failure it was to handle.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Node { node, .. } | Self::Handler { node, .. } | Self::UnknownNode { node, .. } => Some(node),
            Self::Incompatible { place, .. } => Some(place),
            other => other.task().and_then(|task| task.split('#').next()),
        }
    }

    /// The thread that it happened on, where the error knows it.
    #[must_use]
    pub fn thread(&self) -> Option<&ThreadKey> {
        match self {
            Self::Node { thread, .. }
            | Self::Handler { thread, .. }
            | Self::StepTimeout { thread, .. }
            | Self::Conflict { thread, .. }
            | Self::UndeclaredWrite { thread, .. }
            | Self::UnknownTarget { thread, .. }
            | Self::AmbiguousUpdate { thread, .. }
            | Self::NoCheckpoint { thread, .. }
            | Self::Panic { thread, .. }
            | Self::StepLimit { thread, .. }
            | Self::TimeLimit { thread, .. }
            | Self::Budget { thread, .. }
            | Self::OtherVersion { thread, .. }
            | Self::NotRecorded { thread, .. } => Some(thread),
            Self::Busy { thread }
            | Self::Pending { thread, .. }
            | Self::BranchExists { thread, .. }
            | Self::UnknownBranch { thread, .. }
            | Self::UnknownThread { thread }
            | Self::Incompatible { thread, .. } => Some(thread),
            Self::UnknownNode { .. }
            | Self::UnknownField { .. }
            | Self::NoParent { .. }
            | Self::NotDurable { .. }
            | Self::NoBudgetNode { .. }
            | Self::NoCheckpointer { .. }
            | Self::UnknownQuestion { .. }
            | Self::AmbiguousAnswer { .. }
            | Self::Missing { .. }
            | Self::RecordedExit
            | Self::State(_)
            | Self::Checkpoint(_) => None,
        }
    }

    /// The checkpoint that the step began at in which it happened; nothing without a store, and nothing if it is about no
    /// step.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<Seq> {
        match self {
            Self::Node { checkpoint, .. }
            | Self::Handler { checkpoint, .. }
            | Self::StepTimeout { checkpoint, .. }
            | Self::Conflict { checkpoint, .. }
            | Self::UndeclaredWrite { checkpoint, .. }
            | Self::UnknownTarget { checkpoint, .. }
            | Self::Panic { checkpoint, .. } => *checkpoint,
            Self::NotRecorded { checkpoint, .. } => Some(*checkpoint),
            _ => None,
        }
    }
}
