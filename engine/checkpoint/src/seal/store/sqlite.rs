//! Keys in a SQLite file.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{failed, kept_in_table};
use crate::seal::keys::KeyError;

/// How long a process waits for another that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of a process: keys are asked for once in a while.
const CONNECTIONS_MAX: u32 = 4;

/// Keys in a SQLite file of their own: what is destroyed is overwritten in the file. What the disk itself keeps of
/// overwritten blocks is the disk's.
///
/// ```
/// # use stepgraph_checkpoint::{Sealed, Sqlite, seal::{KeyError, MasterKeys, SqliteKeys, TenantKeys}};
/// # async fn open(folder: &std::path::Path, master: MasterKeys, store: Sqlite) -> Result<(), KeyError> {
/// let keys = TenantKeys::new(master, SqliteKeys::open(folder.join("keys.db")).await?);
/// let store = Sealed::new(store, keys);
/// # let _ = store;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SqliteKeys(SqlitePool);

impl SqliteKeys {
    /// Opens the file, making it and its folders where they are missing.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`]
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Full)
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX);
        let pool = pool.connect_with(options).await.map_err(failed)?;
        let mut turn = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut migrator = sqlx::migrate!("./migrations/keys");
        migrator.dangerous_set_table_name("key_migrations");
        // `run` would take the connection too, but makes a future that the compiler cannot see to be `Send`.
        migrator.run_direct(None, &mut *turn, false).await.map_err(failed)?;
        turn.commit().await.map_err(failed)?;
        Ok(Self(pool))
    }
}

kept_in_table!(SqliteKeys, "tenant_keys");
