//! What happens in a graph inside a node, told as JSON: its state is of a type that the reader does not know.

use std::{borrow::Cow, time::Duration};

use serde_json::Value;
use uuid::Uuid;

use super::{EventKind, StartedTask};
use crate::{
    ask::Question,
    checkpoint::{CheckpointSource, Seq},
    run::Stop,
    state::{State, StateError, Update},
};

/// What happened in a graph inside a node. The variants are those of [`EventKind`], with states and updates as JSON.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum InsideKind {
    /// A step begins.
    Step {
        /// Its number on the inner thread.
        step: i64,
        /// The tasks.
        tasks: Vec<StartedTask>,
    },
    /// A task has finished.
    Update {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
        /// What it writes.
        update: Value,
        /// Whether the node cache had it, so that the node did not run.
        cached: bool,
    },
    /// A task has failed and is tried again.
    Retry {
        /// The task's node.
        node: Cow<'static, str>,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Why.
        error: String,
        /// How long the next attempt waits.
        delay: Duration,
    },
    /// A task has failed for good, and its handler takes over.
    Handed {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
        /// The handler.
        handler: Cow<'static, str>,
        /// Why it failed.
        error: String,
    },
    /// A task has failed for good.
    Failed {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
        /// Why.
        error: String,
    },
    /// A join has cancelled a task.
    Cancelled {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
    },
    /// A task asks.
    Asked {
        /// What it asks.
        question: Question,
    },
    /// A breakpoint.
    Paused {
        /// Which.
        at: Stop,
    },
    /// The state after a step that has changed it.
    Values {
        /// The state.
        state: Value,
        /// The fields that changed.
        changed: Vec<Cow<'static, str>>,
    },
    /// A step's end.
    Saved {
        /// The step that ended.
        step: i64,
        /// Why there is a checkpoint.
        source: CheckpointSource,
        /// The nodes of the tasks that follow.
        next: Vec<Cow<'static, str>>,
        /// The checkpoint's number and its outer id.
        checkpoint: Option<(Seq, Uuid)>,
        /// The state that was saved.
        state: Option<Value>,
    },
}

impl InsideKind {
    /// The variant's name, in `snake_case`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Step { .. } => "step",
            Self::Update { .. } => "update",
            Self::Retry { .. } => "retry",
            Self::Handed { .. } => "handed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Asked { .. } => "asked",
            Self::Paused { .. } => "paused",
            Self::Values { .. } => "values",
            Self::Saved { .. } => "saved",
        }
    }
}

/// What happened in a graph whose state the reader does not know; made by [`EventKind::into_json`].
#[derive(Debug, Clone, PartialEq)]
pub enum Inside<E> {
    /// A node of it has emitted an event.
    Custom {
        /// The node.
        node: Cow<'static, str>,
        /// What it emitted.
        event: E,
    },
    /// Everything else.
    Kind(InsideKind),
}

impl<E> Inside<E> {
    pub(crate) fn map<F>(self) -> Inside<F>
    where
        E: Into<F>,
    {
        match self {
            Self::Custom { node, event } => Inside::Custom {
                node,
                event: event.into(),
            },
            Self::Kind(kind) => Inside::Kind(kind),
        }
    }

    /// `None` for what does not become JSON.
    pub(super) fn of<S: State<Event = E>>(kind: EventKind<S>) -> Option<Self> {
        Some(Self::Kind(match kind {
            EventKind::Custom { node, event } => return Some(Self::Custom { node, event }),
            EventKind::Inside(kind) => kind,
            EventKind::Step { step, tasks } => InsideKind::Step { step, tasks },
            EventKind::Update {
                node,
                task,
                update,
                cached,
            } => InsideKind::Update {
                node,
                task,
                update: json(update.shown())?,
                cached,
            },
            EventKind::Retry {
                node,
                attempt,
                error,
                delay,
            } => InsideKind::Retry {
                node,
                attempt,
                error,
                delay,
            },
            EventKind::Handed {
                node,
                task,
                handler,
                error,
            } => InsideKind::Handed {
                node,
                task,
                handler,
                error,
            },
            EventKind::Failed { node, task, error } => InsideKind::Failed { node, task, error },
            EventKind::Cancelled { node, task } => InsideKind::Cancelled { node, task },
            EventKind::Asked { question } => InsideKind::Asked { question },
            EventKind::Paused { at } => InsideKind::Paused { at },
            EventKind::Values { state, changed } => InsideKind::Values {
                state: json(state.shown())?,
                changed,
            },
            EventKind::Saved {
                step,
                source,
                next,
                checkpoint,
                state,
            } => InsideKind::Saved {
                step,
                source,
                next,
                checkpoint,
                state: state.and_then(|state| json(state.shown())),
            },
        }))
    }
}

fn json(shown: Result<Value, StateError>) -> Option<Value> {
    match shown {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(%error, "an inner graph's state does not become JSON, its event is left out");
            None
        }
    }
}
