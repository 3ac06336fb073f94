//! What can go wrong at a service.

use std::{error::Error, time::Duration};

use stepgraph::NodeError;

/// Why a service did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The service is down, full or overloaded; trying again later can help.
    #[error("{service} is unavailable: {message}")]
    Unavailable {
        /// Which service.
        service: &'static str,
        /// What happened and what to do.
        message: String,
        /// The driver's own error.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The service asks to slow down.
    #[error("{service} refuses more calls for now: {message}")]
    RateLimited {
        /// Which service.
        service: &'static str,
        /// What it said.
        message: String,
        /// How long it asks to wait, where it said so.
        retry_after: Option<Duration>,
    },
    /// The service took longer than its limit.
    #[error("{service} did not answer within {limit:?}")]
    Timeout {
        /// Which service.
        service: &'static str,
        /// The limit that was reached.
        limit: Duration,
    },
    /// The request cannot succeed as it stands; trying again is useless.
    #[error("{service} refuses the request: {message}")]
    Refused {
        /// Which service.
        service: &'static str,
        /// Why, and what to do.
        message: String,
    },
    /// What is stored does not fit what is asked, for instance another embedding model.
    #[error("{service} holds data that does not fit: {message}")]
    Mismatch {
        /// Which service.
        service: &'static str,
        /// What differs, and the remedy.
        message: String,
    },
    /// Stored data cannot be read.
    #[error("{service} returned unreadable data: {message}")]
    Corrupt {
        /// Which service.
        service: &'static str,
        /// What was found.
        message: String,
    },
    /// The scripted model was told to fail with this code. A variant of its own, since a test that asks for a code
    /// must get exactly that one, and the others do not map one to one to the codes of the wire.
    #[error("the scripted model fails with {}, as its message asks", code_alone(code))]
    Scripted {
        /// The code as written in the message, for instance `LLM_ERROR`.
        code: String,
    },
}

/// A code is shown, and a message that was written in the place of one is not: errors go to logs.
fn code_alone(code: &str) -> &str {
    let is_code = |letter: u8| letter.is_ascii_uppercase() || letter == b'_';
    if code.bytes().all(is_code) {
        code
    } else {
        "what is no code"
    }
}

/// The cause of an unavailable service that says when to come back.
#[derive(Debug, thiserror::Error)]
#[error("it asks to wait {0:?}")]
pub(super) struct AskedToWait(pub(super) Duration);

impl ServiceError {
    /// Stable code for logs, metrics and the error guide.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "service::unavailable",
            Self::RateLimited { .. } => "service::rate_limited",
            Self::Timeout { .. } => "service::timeout",
            Self::Refused { .. } => "service::refused",
            Self::Mismatch { .. } => "service::mismatch",
            Self::Corrupt { .. } => "service::corrupt",
            Self::Scripted { .. } => "service::scripted",
        }
    }

    /// Whether the same call may succeed later. A scripted failure says no, so that it reaches the caller as it is.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Timeout { .. }
        )
    }

    /// How long the service asks to wait before the next call, where it says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            Self::Unavailable {
                source: Some(source), ..
            } => source.downcast_ref::<AskedToWait>().map(|asked| asked.0),
            Self::Unavailable { .. }
            | Self::Timeout { .. }
            | Self::Refused { .. }
            | Self::Mismatch { .. }
            | Self::Corrupt { .. }
            | Self::Scripted { .. } => None,
        }
    }

    /// As a node's error: worth a retry exactly when this one is.
    #[must_use]
    pub fn into_node_error(self) -> NodeError {
        if self.is_retryable() {
            NodeError::retryable(self)
        } else {
            NodeError::terminal(self)
        }
    }
}
