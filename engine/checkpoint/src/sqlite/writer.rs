//! The one way by which anything is written.
//!
//! SQLite has one writer at a time. Inside this process the turns stand in a fair queue, which is quicker and juster
//! than its busy handler; that is left for other processes. Committing several waiting turns with one flush to the disk
//! would be done here and nowhere else.

use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use stepgraph::CheckpointError;
use tokio::sync::{Mutex, MutexGuard};

use super::failure;

/// Holds the connection for writing while nobody writes.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    idle: Mutex<Option<SqliteConnection>>,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        Self {
            options,
            idle: Mutex::new(Some(connection)),
        }
    }

    /// Waits for its turn and begins a transaction that holds the file's write lock from its start.
    pub(super) async fn begin(&self) -> Result<Turn<'_>, CheckpointError> {
        let mut idle = self.idle.lock().await;
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(failure::anywhere)?,
        };
        run(&mut connection, "BEGIN IMMEDIATE").await?;
        Ok(Turn { idle, connection })
    }
}

/// An open transaction.
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

    /// Makes the work last if it succeeded and takes it back if it was refused. After a failure of the store itself
    /// nothing is known of the connection, so it is closed, which takes the work back too.
    pub(super) async fn end<T>(mut self, work: Result<T, CheckpointError>) -> Result<T, CheckpointError> {
        let statement = match &work {
            Ok(_) => "COMMIT",
            Err(error) if is_refusal(error) => "ROLLBACK",
            Err(_) => return work,
        };
        run(&mut self.connection, statement).await?;
        *self.idle = Some(self.connection);
        work
    }
}

/// Whether the store was asked for what the thread does not allow, and is itself well.
const fn is_refusal(error: &CheckpointError) -> bool {
    matches!(
        error,
        CheckpointError::Conflict { .. } | CheckpointError::Fenced { .. } | CheckpointError::NoCheckpoint { .. }
    )
}

async fn run(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), CheckpointError> {
    let done = sqlx::query(statement).execute(connection).await;
    done.map(drop).map_err(failure::anywhere)
}
