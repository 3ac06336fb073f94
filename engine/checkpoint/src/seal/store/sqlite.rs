//! Keys in a SQLite file.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use stepgraph::TenantId;

use super::{KeptKey, KeyStore, failed, number};
use crate::seal::keys::{KeyError, KeyId};

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

#[async_trait]
impl KeyStore for SqliteKeys {
    async fn newest(&self, tenant: &TenantId) -> Result<Option<KeptKey>, KeyError> {
        const NEWEST: &str = "SELECT number, wrapped FROM tenant_keys WHERE tenant = ? ORDER BY number DESC LIMIT 1";
        let row: Option<(i64, Option<Vec<u8>>)> = sqlx::query_as(NEWEST)
            .bind(tenant.as_str())
            .fetch_optional(&self.0)
            .await
            .map_err(failed)?;
        let kept = row.map(|(id, wrapped)| {
            Ok(KeptKey {
                id: number(id)?,
                wrapped,
            })
        });
        kept.transpose()
    }

    async fn get(&self, tenant: &TenantId, id: KeyId) -> Result<Option<KeptKey>, KeyError> {
        const ONE: &str = "SELECT wrapped FROM tenant_keys WHERE tenant = ? AND number = ?";
        let row: Option<(Option<Vec<u8>>,)> = sqlx::query_as(ONE)
            .bind(tenant.as_str())
            .bind(i64::from(id.0))
            .fetch_optional(&self.0)
            .await
            .map_err(failed)?;
        Ok(row.map(|(wrapped,)| KeptKey { id, wrapped }))
    }

    async fn keep(&self, tenant: &TenantId, id: KeyId, wrapped: &[u8]) -> Result<bool, KeyError> {
        const KEEP: &str = "INSERT INTO tenant_keys (tenant, number, wrapped) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
        let kept = sqlx::query(KEEP)
            .bind(tenant.as_str())
            .bind(i64::from(id.0))
            .bind(wrapped)
            .execute(&self.0)
            .await
            .map_err(failed)?;
        Ok(kept.rows_affected() == 1)
    }

    async fn rewrap(&self, tenant: &TenantId, id: KeyId, from: &[u8], to: &[u8]) -> Result<(), KeyError> {
        const REWRAP: &str = "UPDATE tenant_keys SET wrapped = ? WHERE tenant = ? AND number = ? AND wrapped = ?";
        sqlx::query(REWRAP)
            .bind(to)
            .bind(tenant.as_str())
            .bind(i64::from(id.0))
            .bind(from)
            .execute(&self.0)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn destroy(&self, tenant: &TenantId) -> Result<u64, KeyError> {
        const DESTROY: &str = "UPDATE tenant_keys SET wrapped = NULL WHERE tenant = ? AND wrapped IS NOT NULL";
        let destroyed = sqlx::query(DESTROY)
            .bind(tenant.as_str())
            .execute(&self.0)
            .await
            .map_err(failed)?;
        Ok(destroyed.rows_affected())
    }
}
