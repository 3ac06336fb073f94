//! What a store says when it does not do what was asked.

use super::Seq;
use crate::id::ThreadKey;

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Somebody else has written to the thread meanwhile.
    #[error("thread {key} has moved on: expected head {expected:?}, found {found:?}; load it again")]
    Conflict {
        /// The thread.
        key: ThreadKey,
        /// The head that the writer had seen.
        expected: Option<Seq>,
        /// The head as it is.
        found: Option<Seq>,
    },
    /// Somebody else has claimed the thread meanwhile.
    #[error("thread {key} was taken over by another worker: stop, nothing more of this run may be written")]
    Fenced {
        /// The thread.
        key: ThreadKey,
    },
    /// There is no such checkpoint.
    #[error("thread {key} has no checkpoint {seq:?}; list its history to see which there are")]
    NoCheckpoint {
        /// The thread.
        key: ThreadKey,
        /// The number asked for.
        seq: Seq,
    },
    /// A checkpoint that was to be removed is still needed.
    #[error(
        "checkpoint {seq:?} of thread {key} is in use: a branch, a tag or a later checkpoint stands on it; plan again"
    )]
    InUse {
        /// The thread.
        key: ThreadKey,
        /// The checkpoint.
        seq: Seq,
    },
    /// The store cannot do this.
    #[error("this checkpoint store does not support {what}: use one that does")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The disk or quota is full.
    #[error("the checkpoint store is full: {message}; free space and resume")]
    Full {
        /// What the store said.
        message: String,
    },
    /// The store is down or busy; trying again later can help.
    #[error("the checkpoint store is unavailable: {message}")]
    Unavailable {
        /// What the store said.
        message: String,
        /// The driver's own error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Stored rows make no sense.
    #[error("the checkpoint store holds unreadable rows for thread {key}: {message}")]
    Corrupt {
        /// The thread.
        key: ThreadKey,
        /// What was found.
        message: String,
    },
    /// What is kept is sealed with a key that is not there.
    #[error(
        "thread {key} is sealed with key {id} of its tenant, and there is none: give the key of that number, or the \
         thread stays unreadable, as it is meant to when a key was erased"
    )]
    NoKey {
        /// The thread.
        key: ThreadKey,
        /// The key's number.
        id: u32,
    },
    /// What is kept does not open: it was sealed with another key, or for another place, or was changed since.
    #[error(
        "{what} of thread {key} does not open: it was changed or moved since it was sealed, or the key of its number is \
         another; look at who writes to the store, and at the key"
    )]
    Forged {
        /// The thread.
        key: ThreadKey,
        /// What does not open.
        what: &'static str,
    },
    /// What is kept was never sealed.
    #[error(
        "{what} of thread {key} is not sealed: it was kept without a key; seal it anew by `stepgraph threads seal` or \
         `Sealed::seal_anew`"
    )]
    NotSealed {
        /// The thread.
        key: ThreadKey,
        /// What is plain.
        what: &'static str,
    },
}

impl CheckpointError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "checkpoint::conflict",
            Self::Fenced { .. } => "checkpoint::fenced",
            Self::NoCheckpoint { .. } => "checkpoint::no_checkpoint",
            Self::InUse { .. } => "checkpoint::in_use",
            Self::Unsupported { .. } => "checkpoint::unsupported",
            Self::Full { .. } => "checkpoint::full",
            Self::Unavailable { .. } => "checkpoint::unavailable",
            Self::Corrupt { .. } => "checkpoint::corrupt",
            Self::NoKey { .. } => "checkpoint::no_key",
            Self::Forged { .. } => "checkpoint::forged",
            Self::NotSealed { .. } => "checkpoint::not_sealed",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }
}
