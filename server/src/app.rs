//! The data folder and the services on it, put together once per process.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

mod backend;
mod chat;
mod checkpoints;
mod error;
mod folder;
mod ingest;
mod installation;
mod models;
mod served;
mod services;

pub use backend::{Graphs, http_settings};
pub use chat::{ChatError, GraphChat};
pub use checkpoints::{SealAnew, sealing};
pub use error::AppError;
pub use folder::{DataFolder, FREE_BYTES_MIN, free_bytes};
pub use ingest::GraphIngest;
pub use installation::{Installation, pdf_worker};
pub use models::{ModelFinding, Models};
pub use services::{caches, document_embedder, embedding, open_records, qdrant_options};

/// How long a statement waits for another's write to end.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to one database file: readers beside the one writer that SQLite allows.
const CONNECTIONS_MAX: u32 = 8;

/// Opens a database file, making it where it is missing.
///
/// # Errors
/// The file cannot be written, is damaged, or its disk is full.
pub async fn open_database(path: &Path) -> Result<SqlitePool, AppError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true);
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .connect_with(options)
        .await
        .map_err(|error| AppError::from_database(path.to_owned(), &error))
}
