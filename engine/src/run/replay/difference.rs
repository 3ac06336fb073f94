//! Where a replay came out otherwise than the record.

use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use crate::checkpoint::Seq;

/// The first place where today's graph comes out otherwise than the recorded run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Divergence {
    /// The step that came out otherwise.
    pub step: i64,
    /// Number of the checkpoint that the step was recorded in.
    pub seq: Seq,
    /// The same by the name shown outside.
    pub checkpoint: Uuid,
    /// What is different.
    pub difference: Difference,
}

/// What came out otherwise.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Difference {
    /// A field of the state.
    State {
        /// The field.
        field: String,
        /// As it was, if it was there.
        recorded: Option<Value>,
        /// As it came out.
        replayed: Option<Value>,
    },
    /// The tasks that run next.
    Tasks {
        /// Those that ran.
        recorded: Vec<String>,
        /// Those that would run.
        replayed: Vec<String>,
    },
    /// What a task is fed with.
    Payload {
        /// The task.
        task: String,
        /// What it was.
        recorded: Value,
        /// What it would be.
        replayed: Value,
    },
    /// What waits: joins that are begun, and deferred nodes.
    Waiting {
        /// As it was.
        recorded: Value,
        /// As it came out.
        replayed: Value,
    },
    /// The graph does not have a place where the recorded run stood.
    Gone {
        /// The node or join.
        place: String,
    },
    /// Today's graph fails where the recorded run went on.
    Failed {
        /// The task, if it was one.
        task: Option<String>,
        /// The error.
        error: String,
    },
    /// What a task gave back.
    Output {
        /// The task.
        task: String,
        /// What it gave.
        recorded: Value,
        /// What it gives.
        replayed: Value,
    },
    /// A service was asked something else.
    Called {
        /// The task.
        task: String,
        /// The service as the node names it.
        service: String,
        /// Which of the task's calls, from 0.
        number: usize,
        /// Service and request of that call in the record, if there are that many. A long request is kept by its hash alone.
        recorded: Option<(String, Option<Value>)>,
        /// What it is asked now.
        replayed: Value,
    },
    /// A service was not asked again.
    NotCalled {
        /// The task.
        task: String,
        /// The service.
        service: String,
        /// Which of the task's calls, from 0.
        number: usize,
        /// What it was asked.
        request: Option<Value>,
    },
    /// An effect that the journal does not know.
    Effect {
        /// The task.
        task: String,
        /// Key of the effect.
        key: String,
    },
    /// An id or random numbers of a purpose that the record does not know.
    Drawn {
        /// The task.
        task: String,
        /// The purpose.
        purpose: String,
    },
    /// A question that was not put, or not answered, in the record.
    Asked {
        /// The task.
        task: String,
        /// Names of the questions.
        questions: Vec<String>,
    },
    /// A graph inside was begun with another input, or not at all in the record.
    Entered {
        /// Namespace of the inner thread.
        namespace: String,
        /// What it was begun with.
        recorded: Option<Value>,
        /// What it would be begun with.
        replayed: Value,
    },
    /// Something inside a graph inside.
    Inside {
        /// Namespace of the inner thread.
        namespace: String,
        /// What.
        divergence: Box<Divergence>,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            seq,
            checkpoint,
            difference,
        } = self;
        write!(f, "step {step} (checkpoint {}, {checkpoint}): {difference}", seq.0)
    }
}

/// A value that may be missing.
struct Maybe<'a>(Option<&'a Value>);

impl fmt::Display for Maybe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State {
                field,
                recorded,
                replayed,
            } => {
                let (was, is) = (Maybe(recorded.as_ref()), Maybe(replayed.as_ref()));
                write!(f, "field `{field}` was {was}, and comes out as {is}")
            }
            Self::Tasks { recorded, replayed } => {
                write!(
                    f,
                    "the tasks that followed were {recorded:?}, and would be {replayed:?}"
                )
            }
            Self::Payload {
                task,
                recorded,
                replayed,
            } => write!(f, "task `{task}` was fed with {recorded}, and would be with {replayed}"),
            Self::Waiting { recorded, replayed } => {
                write!(f, "what waits was {recorded}, and comes out as {replayed}")
            }
            Self::Gone { place } => write!(f, "the recorded run stood at `{place}`, which the graph does not have"),
            Self::Failed {
                task: Some(task),
                error,
            } => write!(f, "task `{task}` fails where the recorded one did not: {error}"),
            Self::Failed { task: None, error } => write!(f, "it fails where the recorded run did not: {error}"),
            Self::Output {
                task,
                recorded,
                replayed,
            } => write!(f, "task `{task}` gave back {recorded}, and gives {replayed}"),
            Self::Called { .. }
            | Self::NotCalled { .. }
            | Self::Effect { .. }
            | Self::Drawn { .. }
            | Self::Asked { .. }
            | Self::Entered { .. }
            | Self::Inside { .. } => self.fmt_body(f),
        }
    }
}

impl Difference {
    /// What only a replay with bodies can find.
    fn fmt_body(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Called {
                task,
                service,
                number,
                recorded,
                replayed,
            } => {
                write!(f, "call {number} of task `{task}` asks `{service}` {replayed}; ")?;
                match recorded {
                    None => f.write_str("the record has no such call"),
                    Some((service, Some(request))) => write!(f, "recorded is `{service}` with {request}"),
                    Some((service, None)) => write!(f, "recorded is `{service}` with another long request"),
                }
            }
            Self::NotCalled {
                task,
                service,
                number,
                request,
            } => {
                let request = Maybe(request.as_ref());
                write!(
                    f,
                    "task `{task}` does not make its recorded call {number} of `{service}` with {request}"
                )
            }
            Self::Effect { task, key } => {
                write!(f, "task `{task}` has an effect `{key}` that the journal does not know")
            }
            Self::Drawn { task, purpose } => {
                write!(
                    f,
                    "task `{task}` draws an id or numbers for `{purpose}`, which it did not"
                )
            }
            Self::Asked { task, questions } => {
                write!(f, "task `{task}` asks {questions:?}, which have no recorded answer")
            }
            Self::Entered {
                namespace,
                recorded,
                replayed,
            } => {
                let recorded = Maybe(recorded.as_ref());
                write!(
                    f,
                    "the graph at `{namespace}` was begun with {recorded}, and would be with {replayed}"
                )
            }
            Self::Inside { namespace, divergence } => write!(f, "inside `{namespace}`, {divergence}"),
            Self::State { .. }
            | Self::Tasks { .. }
            | Self::Payload { .. }
            | Self::Waiting { .. }
            | Self::Gone { .. }
            | Self::Failed { .. }
            | Self::Output { .. } => Ok(()),
        }
    }
}
