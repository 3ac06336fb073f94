//! Why a run did not come to an outcome.

mod place;

use std::{error::Error, time::Duration};

use uuid::Uuid;

use super::{RaiseBudget, Spent};
use crate::{
    checkpoint::{CheckpointError, Seq},
    id::ThreadKey,
    node::Failure,
    state::StateError,
};

/// Why a run did not come to an outcome. What had finished before is kept, and the thread can be resumed unless said
/// otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A node failed for good: terminally, or in its last attempt.
    #[error(
        "node `{node}`{task} failed in step {step} of thread {thread}{from} after {attempts} attempt(s) ({remedy}): {source}",
        task = if task == node { String::new() } else { format!(" (task `{task}`)") },
        from = begun(*checkpoint),
        remedy = remedy(*checkpoint)
    )]
    Node {
        /// The node.
        node: String,
        /// The task inside the step.
        task: String,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
        /// How often it was tried.
        attempts: u32,
        /// Whether another attempt might have mended it.
        retryable: bool,
        /// What the node said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The handler of a failed task failed as well.
    #[error(
        "handler `{handler}` failed in step {step} of thread {thread}{from} after {attempts} attempt(s) ({remedy}): {source}; it was handling a failure of node `{node}`: {failure}",
        from = begun(*checkpoint),
        remedy = remedy(*checkpoint)
    )]
    Handler {
        /// The handler's task: its name, and `#` with the failed task behind it.
        handler: String,
        /// The node whose failure it was to handle.
        node: String,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
        /// How often the handler was tried.
        attempts: u32,
        /// Whether another attempt might have mended it.
        retryable: bool,
        /// What it was to handle.
        failure: Box<Failure>,
        /// What the handler said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A step took longer than the graph allows.
    #[error(
        "step {step} of thread {thread}{from} took longer than {limit:?}: {tasks:?} had not finished; raise `step_timeout`, or make them faster; resume runs them again",
        from = begun(*checkpoint)
    )]
    StepTimeout {
        /// The limit.
        limit: Duration,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
        /// What was cut off.
        tasks: Vec<String>,
    },
    /// Two tasks of one step wrote a field that takes one write a step.
    #[error(
        "`{first}` and `{second}` both wrote `{field}` in step {step} of thread {thread}{from}: let one of them write it, or give the field a reducer that merges",
        from = begun(*checkpoint)
    )]
    Conflict {
        /// The field.
        field: String,
        /// The task of one writer.
        first: String,
        /// The task of the other.
        second: String,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
    },
    /// A task wrote a field that its node has said it does not write; nothing of the step was merged.
    #[error(
        "`{task}` wrote `{field}` in step {step} of thread {thread}{from}, which is not among what its node is said to write: add it there by `g.writes(..)`, or let the node not write it",
        from = begun(*checkpoint)
    )]
    UndeclaredWrite {
        /// The task: its node, and of a worker the number of its item; or the handler that ran for it.
        task: String,
        /// The field.
        field: String,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
    },
    /// A branch or a node led to a place that the graph does not have.
    #[error(
        "`{from}` led to `{target}` in step {step} of thread {thread}{at}, which is no node of graph `{graph}`: lead it to one, or add the node",
        at = begun(*checkpoint)
    )]
    UnknownTarget {
        /// The task that led there, or START.
        from: String,
        /// Where to.
        target: String,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
        /// The graph.
        graph: String,
    },
    /// An edit does not say as which node it is made.
    #[error(
        "the edit of thread {thread} does not say as which node it is made, and the last step ran {candidates:?}: name one by `as_node`"
    )]
    AmbiguousUpdate {
        /// The thread.
        thread: Box<ThreadKey>,
        /// Who ran last.
        candidates: Vec<String>,
    },
    /// The graph has no node of this name.
    #[error("graph `{graph}` has no node `{node}`: name one that it has")]
    UnknownNode {
        /// The graph.
        graph: String,
        /// The name.
        node: String,
    },
    /// The state stores no field of this name.
    #[error("the state of graph `{graph}` stores no field `{field}`: name one that it does")]
    UnknownField {
        /// The graph.
        graph: String,
        /// The name.
        field: String,
    },
    /// The thread has no such checkpoint.
    #[error("thread {thread} has no checkpoint {at}: list its history to see which there are")]
    NoCheckpoint {
        /// The thread.
        thread: Box<ThreadKey>,
        /// What was asked for.
        at: String,
    },
    /// A node has ended its graph in favour of the graph around it, and there is none.
    #[error("a node of graph `{graph}` left for the graph around it, but there is none: run it as a node of another")]
    NoParent {
        /// The graph.
        graph: String,
    },
    /// A reducer, a branch, a fan-out or a layer panicked; nothing of the step was kept.
    #[error(
        "{doing} panicked in step {step} of thread {thread}{from}: {message}; nothing of the step is kept, mend the closure or reducer and resume",
        from = begun(*checkpoint)
    )]
    Panic {
        /// What was done meanwhile, such as merging the update of a task.
        doing: String,
        /// The task whose update was merged or whose ways on were followed, if it was one.
        task: Option<String>,
        /// The step.
        step: i64,
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint the step started from.
        checkpoint: Option<Seq>,
        /// What it said.
        message: String,
    },
    /// The run took as many steps as it may.
    #[error(
        "no end of thread {thread} after {limit} step(s): raise `step_limit`, or look for a loop that never ends; resume goes on"
    )]
    StepLimit {
        /// The thread.
        thread: Box<ThreadKey>,
        /// The limit.
        limit: u32,
    },
    /// The run took as long as it may.
    #[error("no end of thread {thread} within {limit:?}: raise `time_limit`; resume goes on")]
    TimeLimit {
        /// The thread.
        thread: Box<ThreadKey>,
        /// The limit.
        limit: Duration,
    },
    /// The store does not keep what the run is to rely on.
    #[error(
        "the checkpoint store of graph `{graph}` may lose its newest commits with the machine, and the run is to be durable at each step: open the store with full durability, or run with `durability(Durability::Async)`"
    )]
    NotDurable {
        /// The graph.
        graph: String,
    },
    /// The run has spent more than it may, and has tasks left. Its state is saved.
    #[error(
        "the run on thread {thread} has spent {spent}, of a budget of {budget}: resume it with a larger `budget`, or let it ask by `OnBudget::Ask`"
    )]
    Budget {
        /// The thread.
        thread: Box<ThreadKey>,
        /// What it has spent.
        spent: Spent,
        /// What it might have spent.
        budget: RaiseBudget,
    },
    /// The run is to go to a node when its budget is spent, and the graph has named none.
    #[error(
        "graph `{graph}` names no node for a spent budget: name one by `g.on_budget(..)`, or let the run stop or ask"
    )]
    NoBudgetNode {
        /// The graph.
        graph: String,
    },
    /// The thread has a run already.
    #[error("thread {thread} has a run already: wait for it, or start with `on_busy(OnBusy::Wait)`")]
    Busy {
        /// The thread.
        thread: ThreadKey,
    },
    /// The thread's last run has tasks left.
    #[error(
        "thread {thread} has unfinished tasks ({tasks}): resume it, or start with `on_pending(OnPending::Discard)`"
    )]
    Pending {
        /// The thread.
        thread: ThreadKey,
        /// What is left.
        tasks: String,
    },
    /// A branch of that name is there already.
    #[error("thread {thread} has a branch `{name}` already: switch to it, or give the new one another name")]
    BranchExists {
        /// The thread.
        thread: ThreadKey,
        /// The name.
        name: String,
    },
    /// The thread has no branch of that name.
    #[error("thread {thread} has no branch `{name}`: it has {branches:?}")]
    UnknownBranch {
        /// The thread.
        thread: ThreadKey,
        /// The name asked for.
        name: String,
        /// The names there are.
        branches: Vec<String>,
    },
    /// There is nothing to resume.
    #[error("thread {thread} was never run: start it with `run`")]
    UnknownThread {
        /// The thread.
        thread: ThreadKey,
    },
    /// Resuming needs something that was saved.
    #[error("graph `{graph}` has no checkpointer: give it one by `checkpointer(..)` to resume threads")]
    NoCheckpointer {
        /// The graph.
        graph: String,
    },
    /// An answer refers to no open question.
    #[error("there is no open question `{id}`: open are {open:?}")]
    UnknownQuestion {
        /// What the answer refers to.
        id: String,
        /// The open questions.
        open: Vec<String>,
    },
    /// One answer for several questions.
    #[error("one answer for {count} open questions ({open:?}): answer by id", count = .open.len())]
    AmbiguousAnswer {
        /// The open questions.
        open: Vec<String>,
    },
    /// The graph needs something that the run was not given.
    #[error("graph `{graph}` needs a `{name}`: start the run with `provide(..)`")]
    Missing {
        /// The graph.
        graph: String,
        /// The type.
        name: &'static str,
    },
    /// The thread waits in a place that this graph does not have.
    #[error(
        "thread {thread} waits at `{place}`, which graph `{graph}` does not have any more: say by `renamed` which node it is now, or run it with the version that has it"
    )]
    Incompatible {
        /// The thread.
        thread: ThreadKey,
        /// The graph.
        graph: String,
        /// The node or join.
        place: String,
    },
    /// The thread has tasks left that another version of the graph has written, and this graph may not go on with them.
    #[error(
        "thread {thread} has tasks left of version {stored} of graph `{graph}`, and this is version {here}: keep that version by `with_older(..)` under `Versions::Pin`, or allow `Versions::Latest`"
    )]
    OtherVersion {
        /// The thread.
        thread: Box<ThreadKey>,
        /// The graph.
        graph: String,
        /// Fingerprint of the graph that wrote the thread's head.
        stored: Uuid,
        /// Fingerprint of this graph.
        here: Uuid,
    },
    /// What is recorded belongs to steps that this run would not keep.
    #[error(
        "a run that is recorded keeps each of its steps: run it with `Durability::Async` or `Sync` instead of `Exit`"
    )]
    RecordedExit,
    /// A replay needs something that was not recorded.
    #[error(
        "checkpoint {seq} of thread {thread} does not say {what}: record runs by `graph.recording(..)`, with `Recording::Calls` to replay bodies",
        seq = .checkpoint.0
    )]
    NotRecorded {
        /// The thread.
        thread: Box<ThreadKey>,
        /// The checkpoint.
        checkpoint: Seq,
        /// What is missing.
        what: &'static str,
    },
    /// The state does not encode or decode.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store refused or failed; the run has stopped before its next step.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The checkpoint that a step began at, as a message says it.
fn begun(checkpoint: Option<Seq>) -> String {
    checkpoint.map_or_else(String::new, |Seq(seq)| format!(" (from checkpoint {seq})"))
}

/// What to do about a node's failure: without a store there is nothing to resume.
const fn remedy(checkpoint: Option<Seq>) -> &'static str {
    match checkpoint {
        Some(_) => "once the cause is mended, resume",
        None => "once the cause is mended, run it again",
    }
}

impl RunError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Node { .. } => "run::node",
            Self::Handler { .. } => "run::handler",
            Self::StepTimeout { .. } => "run::step_timeout",
            Self::Conflict { .. } => "run::conflict",
            Self::UndeclaredWrite { .. } => "run::undeclared_write",
            Self::UnknownTarget { .. } => "run::unknown_target",
            Self::AmbiguousUpdate { .. } => "run::ambiguous_update",
            Self::UnknownNode { .. } => "run::unknown_node",
            Self::UnknownField { .. } => "run::unknown_field",
            Self::NoParent { .. } => "run::no_parent",
            Self::NoCheckpoint { .. } => "run::no_checkpoint",
            Self::Panic { .. } => "run::panic",
            Self::StepLimit { .. } => "run::step_limit",
            Self::TimeLimit { .. } => "run::time_limit",
            Self::NotDurable { .. } => "run::not_durable",
            Self::Budget { .. } => "run::budget",
            Self::NoBudgetNode { .. } => "run::no_budget_node",
            Self::Busy { .. } => "run::busy",
            Self::Pending { .. } => "run::pending",
            Self::BranchExists { .. } => "run::branch_exists",
            Self::UnknownBranch { .. } => "run::unknown_branch",
            Self::UnknownThread { .. } => "run::unknown_thread",
            Self::NoCheckpointer { .. } => "run::no_checkpointer",
            Self::UnknownQuestion { .. } => "run::unknown_question",
            Self::AmbiguousAnswer { .. } => "run::ambiguous_answer",
            Self::Missing { .. } => "run::missing",
            Self::Incompatible { .. } => "run::incompatible",
            Self::OtherVersion { .. } => "run::other_version",
            Self::RecordedExit => "run::recorded_exit",
            Self::NotRecorded { .. } => "run::not_recorded",
            Self::State(error) => error.code(),
            Self::Checkpoint(error) => error.code(),
        }
    }

    /// The error of type `E` that a node has failed with, at any depth of subgraphs.
    #[must_use]
    pub fn node_error<E: Error + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// A node panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {message}")]
pub struct NodePanic {
    /// What it said.
    pub message: String,
}

impl NodePanic {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "node::panic"
    }
}
