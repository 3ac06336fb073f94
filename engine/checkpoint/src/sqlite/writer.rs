//! The one way by which anything is written.
//!
//! SQLite has one writer at a time. Inside this process the turns stand in a fair queue, which is quicker and juster
//! than its busy handler; that is left for other processes. Commits that wait share a turn: see [`super::group`].

use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use stepgraph::CheckpointError;
use tokio::sync::{Mutex, MutexGuard};

use super::{Statement, failure, group::Waiting};
use crate::row::is_refusal;

/// Holds the connection for writing while nobody writes.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    idle: Mutex<Option<SqliteConnection>>,
    waiting: Waiting,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        Self {
            options,
            idle: Mutex::new(Some(connection)),
            waiting: Waiting::default(),
        }
    }

    pub(super) const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Waits for its turn. The first statement has to be one made with [`opening!`].
    pub(super) async fn turn(&self) -> Result<Turn<'_>, CheckpointError> {
        let mut idle = self.idle.lock().await;
        let connection = match idle.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(failure::anywhere)?,
        };
        Ok(Turn { idle, connection })
    }
}

/// A statement that begins a transaction, with the file's write lock taken, and goes on with the first of its work. Each
/// call to SQLite crosses to the connection's own thread and back, which costs as much as the work itself: what can go
/// in one call does.
macro_rules! opening {
    ($($sql:expr),+) => { concat!("BEGIN IMMEDIATE; ", $($sql),+) };
}
pub(super) use opening;

/// A turn at writing: one transaction.
///
/// # Cancel safety
///
/// Dropping it at any await closes the connection, which rolls back whatever was not committed. The next turn opens
/// another, so that no failure and no cancellation leaves a connection in doubt behind.
#[derive(Debug)]
pub(super) struct Turn<'writer> {
    idle: MutexGuard<'writer, Option<SqliteConnection>>,
    connection: SqliteConnection,
}

impl Turn<'_> {
    pub(super) const fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Ends after work that has committed by itself.
    pub(super) fn leave(self) {
        let Self { mut idle, connection } = self;
        *idle = Some(connection);
    }

    /// Takes another connection, which takes back whatever was not committed on this one.
    pub(super) async fn reconnect(&mut self, writer: &Writer) -> Result<(), CheckpointError> {
        self.connection = writer.options.connect().await.map_err(failure::anywhere)?;
        Ok(())
    }

    /// Ends after work that has committed by itself, or has failed and left the connection in doubt.
    pub(super) fn committed<T>(self, work: Result<T, CheckpointError>) -> Result<T, CheckpointError> {
        if work.is_ok() {
            self.leave();
        }
        work
    }

    /// Makes the work last if it succeeded, and takes it back if it did not.
    pub(super) async fn end<T>(self, work: Result<T, CheckpointError>) -> Result<T, CheckpointError> {
        self.close(work.map(|value| (value, sqlx::query("COMMIT")))).await
    }

    /// The same, by a last statement that commits. After a failure of the store itself nothing is known of
    /// the connection, so it is closed, which takes the work back too.
    pub(super) async fn close<T>(
        mut self,
        work: Result<(T, Statement), CheckpointError>,
    ) -> Result<T, CheckpointError> {
        let (outcome, last) = match work {
            Ok((value, last)) => (Ok(value), last),
            Err(error) if is_refusal(&error) => (Err(error), sqlx::query("ROLLBACK")),
            Err(error) => return Err(error),
        };
        last.execute(&mut self.connection).await.map_err(failure::anywhere)?;
        *self.idle = Some(self.connection);
        outcome
    }
}
