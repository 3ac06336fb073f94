//! How a database of checkpoints is reached.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{Durability, LARGE_VALUE_BYTES};

/// Settings of a [`Postgres`](super::Postgres) store.
///
/// ```
/// # use stepgraph_checkpoint::{Durability, PostgresOptions};
/// let options = PostgresOptions::default().connections_max(32).schema("stepgraph");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresOptions {
    durability: Durability,
    connections_max: u32,
    connections_min: u32,
    wait_max: Duration,
    statement_timeout: Duration,
    idle_timeout: Duration,
    lifetime_max: Duration,
    schema: Option<String>,
    values_from: usize,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            connections_max: 10,
            connections_min: 0,
            wait_max: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(10),
            lifetime_max: Duration::from_mins(30),
            schema: None,
            values_from: LARGE_VALUE_BYTES,
        }
    }
}

impl PostgresOptions {
    /// What a finished commit survives; [`Durability::Full`] unless told.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many calls run side by side; 10 unless told, at least 1. Calls beyond it wait.
    pub const fn connections_max(mut self, connections_max: u32) -> Self {
        self.connections_max = if connections_max == 0 { 1 } else { connections_max };
        self
    }

    /// How many connections are kept open while nobody needs them; none unless told.
    pub const fn connections_min(mut self, connections_min: u32) -> Self {
        self.connections_min = connections_min;
        self
    }

    /// How long a call waits for a connection, opening one included; 10 seconds unless told.
    pub const fn wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// How long the server works on one statement, waiting for another writer of the same thread included; 30 seconds
    /// unless told.
    pub const fn statement_timeout(mut self, statement_timeout: Duration) -> Self {
        self.statement_timeout = statement_timeout;
        self
    }

    /// How long a connection that nobody needs is kept; 10 minutes unless told.
    pub const fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }

    /// How old a connection becomes at most; 30 minutes unless told.
    pub const fn lifetime_max(mut self, lifetime_max: Duration) -> Self {
        self.lifetime_max = lifetime_max;
        self
    }

    /// The schema of the tables, made if it is not there. Unless told, the first of the user's search path.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
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

    pub(super) fn schema_name(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    pub(super) fn pool(&self) -> PgPoolOptions {
        PgPoolOptions::new()
            .max_connections(self.connections_max)
            .min_connections(self.connections_min)
            .acquire_timeout(self.wait_max)
            .idle_timeout(self.idle_timeout)
            .max_lifetime(self.lifetime_max)
            // A call that finds its connection lost is made again on one that answers: to ask before each would double
            // the ways to the server.
            .test_before_acquire(false)
    }

    pub(super) fn connect(&self, options: PgConnectOptions) -> PgConnectOptions {
        let synchronous = match self.durability {
            Durability::Full => "on",
            Durability::Normal => "off",
        };
        let timeout = format!("{}ms", self.statement_timeout.as_millis());
        let options = options.options([
            ("synchronous_commit", synchronous),
            ("statement_timeout", timeout.as_str()),
            // All statements look rows up by number or name: no value makes another plan better, and to make one anew for each
            // of the first calls on a connection costs more than the calls.
            ("plan_cache_mode", "force_generic_plan"),
        ]);
        match &self.schema {
            Some(schema) => options.options([("search_path", format!("\"{}\"", schema.replace('"', "\"\"")))]),
            None => options,
        }
    }
}
