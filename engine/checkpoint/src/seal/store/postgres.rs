//! Keys in PostgreSQL.

use async_trait::async_trait;
use sqlx::{PgPool, postgres::PgPoolOptions};
use stepgraph::TenantId;

use super::{KeptKey, KeyStore, failed, number};
use crate::seal::keys::{KeyError, KeyId};

/// Connections of a process: keys are asked for once in a while.
const CONNECTIONS_MAX: u32 = 4;

/// Keys in the table `stepgraph_tenant_keys` of a PostgreSQL database. A row that was destroyed is gone from the table at
/// once, from its file with the next `VACUUM`, and from the server's archives when they end: leave the table out of copies
/// that last (`pg_dump --exclude-table=stepgraph_tenant_keys`).
#[derive(Debug, Clone)]
pub struct PostgresKeys(PgPool);

impl PostgresKeys {
    /// Connects to the database, and makes the table where it is missing.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`]
    pub async fn open(url: &str) -> Result<Self, KeyError> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX);
        Self::new(pool.connect(url).await.map_err(failed)?).await
    }

    /// Works on a pool that others use too.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`]
    pub async fn new(pool: PgPool) -> Result<Self, KeyError> {
        let mut connection = pool.acquire().await.map_err(failed)?;
        let mut migrator = sqlx::migrate!("./migrations/keys_postgres");
        migrator.dangerous_set_table_name("stepgraph_key_migrations");
        // `run` would take the connection too, but makes a future that the compiler cannot see to be `Send`.
        migrator
            .run_direct(None, &mut *connection, false)
            .await
            .map_err(failed)?;
        drop(connection);
        Ok(Self(pool))
    }
}

#[async_trait]
impl KeyStore for PostgresKeys {
    async fn newest(&self, tenant: &TenantId) -> Result<Option<KeptKey>, KeyError> {
        const NEWEST: &str =
            "SELECT number, wrapped FROM stepgraph_tenant_keys WHERE tenant = $1 ORDER BY number DESC LIMIT 1";
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
        const ONE: &str = "SELECT wrapped FROM stepgraph_tenant_keys WHERE tenant = $1 AND number = $2";
        let row: Option<(Option<Vec<u8>>,)> = sqlx::query_as(ONE)
            .bind(tenant.as_str())
            .bind(i64::from(id.0))
            .fetch_optional(&self.0)
            .await
            .map_err(failed)?;
        Ok(row.map(|(wrapped,)| KeptKey { id, wrapped }))
    }

    async fn keep(&self, tenant: &TenantId, id: KeyId, wrapped: &[u8]) -> Result<bool, KeyError> {
        const KEEP: &str =
            "INSERT INTO stepgraph_tenant_keys (tenant, number, wrapped) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
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
        const REWRAP: &str =
            "UPDATE stepgraph_tenant_keys SET wrapped = $1 WHERE tenant = $2 AND number = $3 AND wrapped = $4";
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
        const DESTROY: &str =
            "UPDATE stepgraph_tenant_keys SET wrapped = NULL WHERE tenant = $1 AND wrapped IS NOT NULL";
        let destroyed = sqlx::query(DESTROY)
            .bind(tenant.as_str())
            .execute(&self.0)
            .await
            .map_err(failed)?;
        Ok(destroyed.rows_affected())
    }
}
