//! One layer around any model: limits of time, tries, and a circuit breaker.
//!
//! [`Resilient`] wraps a [`ChatModel`](super::ChatModel), [`ResilientEmbedder`] an [`Embedder`](super::Embedder). Both try
//! a call again that may pass a moment later, as long as nothing of its answer has come, and wait as long as the provider
//! asks. A model that fails again and again is not asked for a while: its [`Breakers`] answer in its place.

mod breaker;
mod chat;
mod embedder;
mod tries;

use std::time::Duration;

pub(super) use self::embedder::batches;
pub use self::{
    breaker::Breakers,
    chat::{Resilient, told_who_answers},
    embedder::ResilientEmbedder,
};

/// How long a call may take, and how often it is tried.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallLimits {
    /// Longest wait for the first token of an answer, or for a batch of embeddings, all tries included. The caller's own
    /// deadline comes first where it is nearer.
    pub first_token_timeout: Duration,
    /// Longest silence between two tokens.
    pub idle_timeout: Duration,
    /// How often a call that failed for now is tried again.
    pub retries_max: u32,
    /// Longest wait before a retry. When the provider asks for a longer one, the call fails at once.
    pub retry_wait_max: Duration,
    /// After so many failures in a row a model is not asked for a while.
    pub failures_max: u32,
    /// How long it then is not asked.
    pub open_for: Duration,
}

impl Default for CallLimits {
    /// What suits a visitor who waits.
    fn default() -> Self {
        Self {
            first_token_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(10),
            retries_max: 2,
            retry_wait_max: Duration::from_secs(8),
            failures_max: 6,
            open_for: Duration::from_secs(15),
        }
    }
}
