//! Keys in PostgreSQL.

use sqlx::{PgPool, postgres::PgPoolOptions};

use super::{failed, kept_in_table};
use crate::seal::keys::KeyError;

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

kept_in_table!(PostgresKeys, "stepgraph_tenant_keys");
