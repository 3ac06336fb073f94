//! Clients, documents, threads, the chat log and what was booked, in one `SQLite` file.
//!
//! Every statement that touches a tenant's rows has the tenant in its `WHERE`. Every write that touches more than one row
//! is one transaction that takes the write lock at its start: a caller that is dropped or killed in the middle leaves
//! nothing behind.

mod alerts;
mod chat_log;
mod clients;
mod data;
mod documents;
mod feedback;
mod named;
mod stored;
mod threads;
mod usage;

use chrono::{DateTime, Utc};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::{Migrate as _, MigrateError},
};

use uuid::Uuid;

use self::stored::database;
use crate::service::ServiceError;

/// Table in which the migrations of this store are noted; other stores in the same file have theirs.
const MIGRATIONS_TABLE: &str = "records_migrations";

/// Every trait of [`Records`](crate::service::Records) over one `SQLite` pool, which other stores may share.
#[derive(Debug, Clone)]
pub struct SqliteRecords {
    pool: SqlitePool,
    now: fn() -> DateTime<Utc>,
    /// Names this opening of the store, and with it the process.
    holder: Uuid,
}

impl SqliteRecords {
    /// Brings the tables up to date and serves them.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Unavailable`] when the file cannot be written, [`ServiceError::Mismatch`] when a newer version
    /// of the program has changed it.
    #[expect(
        clippy::disallowed_methods,
        reason = "a store is an outermost edge; `with_clock` replaces it"
    )]
    pub async fn open(pool: SqlitePool) -> Result<Self, ServiceError> {
        let mut migrator = sqlx::migrate!("./migrations/records");
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        migrator.run(&pool).await.map_err(stored::migration)?;
        Ok(Self {
            pool,
            now: Utc::now,
            holder: Uuid::new_v4(),
        })
    }

    /// The migrations of these tables: version, what it does, and whether the database has it.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub async fn migrations(pool: &SqlitePool) -> Result<Vec<(i64, String, bool)>, ServiceError> {
        let is_known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?)")
            .bind(MIGRATIONS_TABLE)
            .fetch_one(pool)
            .await
            .map_err(database)?;
        let applied = if is_known {
            let mut connection = pool.acquire().await.map_err(database)?;
            connection
                .list_applied_migrations(MIGRATIONS_TABLE)
                .await
                .map_err(stored::migration)?
        } else {
            Vec::new()
        };
        let known = sqlx::migrate!("./migrations/records");
        if let Some(newer) = applied.iter().find(|done| !known.version_exists(done.version)) {
            return Err(stored::migration(MigrateError::VersionMissing(newer.version)));
        }
        let has = |version| applied.iter().any(|done| done.version == version);
        Ok(known
            .iter()
            .map(|one| (one.version, one.description.to_string(), has(one.version)))
            .collect())
    }

    /// The same store with another clock, for tests that place records in time.
    #[must_use]
    pub fn with_clock(self, now: fn() -> DateTime<Utc>) -> Self {
        Self { now, ..self }
    }

    /// Begins a transaction that holds the write lock, so that it cannot fail half-way for want of it.
    async fn write_lock(&self) -> Result<Transaction<'static, Sqlite>, ServiceError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(database)
    }

    /// The time as it is stored.
    fn now_text(&self) -> String {
        stored::time((self.now)())
    }
}
