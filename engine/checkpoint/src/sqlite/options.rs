//! How a file of checkpoints is opened.

use std::{path::Path, time::Duration};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::{Durability, LARGE_VALUE_BYTES};

pub(super) const fn synchronous(durability: Durability) -> SqliteSynchronous {
    match durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Normal => SqliteSynchronous::Normal,
    }
}

/// What SQLite's own number means, or `None` where nothing is promised.
pub(super) const fn from_pragma(synchronous: i64) -> Option<Durability> {
    match synchronous {
        0 => None,
        1 => Some(Durability::Normal),
        _ => Some(Durability::Full),
    }
}

/// Settings of a [`Sqlite`](super::Sqlite) store.
///
/// ```
/// # use stepgraph_checkpoint::{Durability, SqliteOptions};
/// let options = SqliteOptions::default().durability(Durability::Normal);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteOptions {
    durability: Durability,
    busy_timeout: Duration,
    readers_max: u32,
    values_from: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            busy_timeout: Duration::from_secs(5),
            readers_max: 4,
            values_from: LARGE_VALUE_BYTES,
        }
    }
}

impl SqliteOptions {
    /// What a finished commit survives; [`Durability::Full`] unless told.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a write waits while another process writes to the file; 5 seconds unless told.
    pub const fn busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// How many reads run side by side; 4 unless told, at least 1. Writes have a connection of their own.
    pub const fn readers_max(mut self, readers_max: u32) -> Self {
        self.readers_max = if readers_max == 0 { 1 } else { readers_max };
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

    pub(super) const fn readers(&self) -> u32 {
        self.readers_max
    }

    pub(super) fn connect(&self, path: &Path) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous(self.durability))
            .busy_timeout(self.busy_timeout)
            .foreign_keys(true)
    }
}
