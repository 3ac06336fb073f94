//! What is kept of a failure.

use std::{borrow::Cow, error::Error, fmt};

use serde::{Deserialize, Serialize};

use super::NodeError;
use crate::{
    checkpoint::CheckpointError,
    run::{NodePanic, NodeTimeout, RunError, decode_record},
    scrub::told,
    state::StateError,
};

/// A task's failure as it is kept with its thread: what handlers are given and what [`TaskState`](crate::TaskState)
/// shows, the same before and after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The error's stable code, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the error said, without what looks like a secret: see [`scrubbed`](crate::scrubbed).
    pub message: String,
    /// Whether another attempt might have mended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retryable: bool,
    /// What the error's sources said, from the outermost in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// How often the node was tried.
    #[serde(default)]
    pub attempts: u32,
    /// The handler that it was handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
}

/// What kind of failure a task has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The node gave back an error.
    Error,
    /// The node panicked.
    Panic,
    /// The node took longer than its policy allows.
    Timeout,
    /// The task was cut off: a sibling failed, or the step took too long. It did not fail itself.
    Cancelled,
}

/// How many sources of an error are kept.
const SOURCES_MAX: usize = 16;

impl Failure {
    pub(crate) fn of(error: &NodeError, attempts: u32) -> Self {
        let inner = error.error();
        let kind = if error.find::<NodePanic>().is_some() {
            FailureKind::Panic
        } else if error.find::<NodeTimeout>().is_some() {
            FailureKind::Timeout
        } else {
            FailureKind::Error
        };
        let sources = std::iter::successors(inner.source(), |error: &&(dyn Error + 'static)| (*error).source());
        Self {
            kind,
            code: error
                .code()
                .map(Cow::Borrowed)
                .or_else(|| known_code(inner))
                .map(Cow::into_owned),
            message: told(&inner),
            retryable: error.is_retryable(),
            sources: sources.take(SOURCES_MAX).map(|source| told(&source)).collect(),
            attempts,
            handler: None,
        }
    }

    pub(crate) fn cancelled(message: String) -> Self {
        Self {
            kind: FailureKind::Cancelled,
            ..Self::in_words(message)
        }
    }

    fn in_words(message: String) -> Self {
        Self {
            kind: FailureKind::Error,
            code: None,
            message,
            retryable: false,
            sources: Vec::new(),
            attempts: 0,
            handler: None,
        }
    }

    /// Reads what was kept; the first versions kept the words alone.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, StateError> {
        decode_record(body).or_else(|error| decode_record(body).map(Self::in_words).map_err(|_| error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The code of an error of the engine's own.
fn known_code(error: &(dyn Error + 'static)) -> Option<Cow<'static, str>> {
    let run = error.downcast_ref::<RunError>().map(RunError::code);
    let checkpoint = || error.downcast_ref::<CheckpointError>().map(CheckpointError::code);
    let state = || error.downcast_ref::<StateError>().map(StateError::code);
    let timeout = || error.downcast_ref::<NodeTimeout>().map(NodeTimeout::code);
    let panic = || error.downcast_ref::<NodePanic>().map(NodePanic::code);
    let code = run.or_else(checkpoint).or_else(state).or_else(timeout).or_else(panic);
    code.map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::encode_record;

    #[test]
    fn what_the_first_versions_kept_is_read_as_words() {
        let failure = Failure::decode(&encode_record(&"broken".to_owned()).unwrap()).unwrap();
        assert_eq!(failure, Failure::in_words("broken".to_owned()));
        assert_eq!(Failure::decode(&encode_record(&failure).unwrap()).unwrap(), failure);
        assert!(Failure::decode(&[0xc1]).is_err());
    }

    #[test]
    fn a_failure_keeps_code_words_and_sources_of_the_error() {
        #[derive(Debug, thiserror::Error)]
        #[error("the model refused")]
        struct Refused(#[source] std::num::ParseIntError);
        let error = || Refused("x".parse::<u8>().unwrap_err());
        let failure = Failure::of(&NodeError::retryable(error()).with_code("model::refused"), 3);
        assert_eq!(failure.code.as_deref(), Some("model::refused"));
        assert_eq!(failure.to_string(), "the model refused");
        assert_eq!(failure.sources, ["invalid digit found in string"]);
        assert_eq!(
            (failure.kind, failure.retryable, failure.attempts),
            (FailureKind::Error, true, 3)
        );
        let panic = NodeError::terminal(NodePanic {
            message: "oh".to_owned(),
        });
        assert_eq!(Failure::of(&panic, 1).code.as_deref(), Some("node::panic"));
    }
}
