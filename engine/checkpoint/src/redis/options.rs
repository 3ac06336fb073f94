//! How a Redis with checkpoints is reached.

use std::time::Duration;

use redis::aio::ConnectionManagerConfig;

use crate::LARGE_VALUE_BYTES;

/// Settings of a [`Redis`](super::Redis) store.
///
/// ```
/// # use stepgraph_checkpoint::RedisOptions;
/// let options = RedisOptions::default().prefix("desk:");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    prefix: String,
    connect_timeout: Duration,
    answer_timeout: Duration,
    reconnects_max: usize,
    at_once_max: u32,
    values_from: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "stepgraph:".to_owned(),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            reconnects_max: 6,
            at_once_max: 500,
            values_from: LARGE_VALUE_BYTES,
        }
    }
}

impl RedisOptions {
    /// What all keys begin with; `stepgraph:` unless told. Stores with different prefixes know nothing of each other, if
    /// neither is the beginning of the other.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long one try to connect takes at most; 5 seconds unless told.
    pub const fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// How long a call waits for the server's answer; 30 seconds unless told. What a call that was given up has done shows
    /// when the thread is read again.
    pub const fn answer_timeout(mut self, answer_timeout: Duration) -> Self {
        self.answer_timeout = answer_timeout;
        self
    }

    /// How often a lost connection is tried anew before a call fails, with a growing pause between; 6 times unless told,
    /// which takes some seconds.
    pub const fn reconnects_max(mut self, reconnects_max: usize) -> Self {
        self.reconnects_max = reconnects_max;
        self
    }

    /// How many checkpoints and messages of a thread one call looks through or takes out, during which the server serves
    /// nobody else; 500 unless told, at least 1. Nobody sees any of a thread that is deleted from the first of these calls on.
    /// A thinning of at most so many checkpoints takes out all of them or none; of more it takes out the youngest first, so
    /// many at a time.
    pub const fn at_once_max(mut self, at_once_max: u32) -> Self {
        self.at_once_max = if at_once_max == 0 { 1 } else { at_once_max };
        self
    }

    /// From how many bytes on, encoded, a value of a state is kept apart from the rows: compressed, and once a thread,
    /// however many of its checkpoints hold it. [`LARGE_VALUE_BYTES`](crate::LARGE_VALUE_BYTES) unless told; `usize::MAX`
    /// keeps all states whole. What is there already reads as it was written, whatever is told here.
    pub const fn values_from(mut self, bytes: usize) -> Self {
        self.values_from = bytes;
        self
    }

    pub(super) const fn values_from_bytes(&self) -> usize {
        self.values_from
    }

    pub(super) const fn at_once_max_number(&self) -> u32 {
        self.at_once_max
    }

    pub(super) fn prefix_text(&self) -> &str {
        &self.prefix
    }

    pub(super) fn connection(&self) -> ConnectionManagerConfig {
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.answer_timeout))
            .set_number_of_retries(self.reconnects_max)
    }
}
