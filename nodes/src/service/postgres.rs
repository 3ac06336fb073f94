//! Clients, documents, threads, the chat log and what was booked, in the PostgreSQL that the Express service owns.
//!
//! Its tables are read and written as they are: `clients` and `client_widgets` are read, `chat_logs` is added to,
//! `documents` and `usage_stats` are kept up to date. All else stands in tables of ours, most of which begin with
//! `stepgraph_`. Every statement that touches a tenant's rows has the tenant in its `WHERE`; every write of more than
//! one row is one transaction.

mod alerts;
mod chat_log;
mod clients;
mod data;
mod documents;
mod named;
mod schema;
mod stored;
mod threads;
mod usage;

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::{
    PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use self::{schema::Shape, stored::database};
use crate::service::{Secret, ServiceError};

/// Table in which the migrations of this store are noted; no other program of the database uses it.
const MIGRATIONS_TABLE: &str = "stepgraph_records_migrations";

/// Whether `clients`, which the Express service owns, may be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientWrites {
    /// Clients are made, paused and erased by their owner alone; settings of ours are kept beside them.
    #[default]
    Refused,
    /// This program may make, change and erase clients.
    Allowed,
}

/// How the server is spoken to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresRecordsOptions {
    /// Most connections at once.
    pub connections_max: u32,
    /// How long a statement may take before the server ends it.
    pub statement_timeout: Duration,
    /// How long a call waits for a free connection, the time to make one included.
    pub acquire_timeout: Duration,
    /// Whether `clients` may be written.
    pub client_writes: ClientWrites,
}

impl Default for PostgresRecordsOptions {
    fn default() -> Self {
        Self {
            connections_max: 16,
            statement_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(5),
            client_writes: ClientWrites::Refused,
        }
    }
}

/// Every trait of [`Records`](crate::service::Records) over the shared database.
///
/// ```no_run
/// # async fn example() -> Result<(), stepgraph_nodes::service::ServiceError> {
/// use stepgraph_nodes::service::{Records, Secret, postgres::{PostgresRecords, PostgresRecordsOptions}};
///
/// let url = Secret::new("postgres://stepgraph:...@localhost/express?sslmode=require");
/// let store = PostgresRecords::open(&url, PostgresRecordsOptions::default()).await?;
/// for gap in store.gaps() {
///     eprintln!("{gap}");
/// }
/// let records = Records::of(store);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresRecords {
    pool: PgPool,
    shape: Shape,
    client_writes: ClientWrites,
    now: fn() -> DateTime<Utc>,
}

impl PostgresRecords {
    /// Connects, brings our tables up to date, and finds out which of the shared ones there are.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] when the server does not answer, [`ServiceError::Mismatch`] when a newer version of
    /// the program has changed our tables, or when the database is not that of the Express service.
    #[expect(
        clippy::disallowed_methods,
        reason = "a store is an outermost edge; `with_clock` replaces it"
    )]
    pub async fn open(url: &Secret, options: PostgresRecordsOptions) -> Result<Self, ServiceError> {
        let pool = connect(url, &options).await?;
        schema::migrator().run(&pool).await.map_err(stored::migration)?;
        let shape = Shape::read(&pool).await?;
        Ok(Self {
            pool,
            shape,
            client_writes: options.client_writes,
            now: Utc::now,
        })
    }

    /// The migrations of our tables: version, what it does, and whether the database has it.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn migrations(url: &Secret) -> Result<Vec<(i64, String, bool)>, ServiceError> {
        let options = PostgresRecordsOptions {
            connections_max: 1,
            ..PostgresRecordsOptions::default()
        };
        schema::migrations(&connect(url, &options).await?).await
    }

    /// The same store with another clock, for tests that place records in time.
    #[must_use]
    pub fn with_clock(self, now: fn() -> DateTime<Utc>) -> Self {
        Self { now, ..self }
    }

    /// What this deployment's tables lack, what is not done because of it, and the remedy. Fit to be told at start.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        self.shape.gaps()
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, ServiceError> {
        self.pool.begin().await.map_err(database)
    }

    /// The time as it is stored.
    fn now(&self) -> NaiveDateTime {
        (self.now)().naive_utc()
    }

    fn may_write_clients(&self) -> Result<(), ServiceError> {
        match self.client_writes {
            ClientWrites::Allowed => Ok(()),
            ClientWrites::Refused => Err(stored::refused(
                "the table `clients` belongs to the Express service: do it there, or say `--write-clients`".to_owned(),
            )),
        }
    }
}

async fn connect(url: &Secret, options: &PostgresRecordsOptions) -> Result<PgPool, ServiceError> {
    // The driver's own error may quote the address, and with it the password.
    let address: PgConnectOptions = url.expose().parse().map_err(|_| {
        stored::refused("the address cannot be read: write `postgres://user:password@host/database`".to_owned())
    })?;
    let timeout = options.statement_timeout.as_millis().to_string();
    PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .connect_with(address.options([("statement_timeout", timeout.as_str()), ("TimeZone", "UTC")]))
        .await
        .map_err(database)
}

/// Lets the rest of the transaction be the only one for this key.
async fn lock(tx: &mut Transaction<'_, Postgres>, key: &str) -> Result<(), ServiceError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(key)
        .execute(&mut **tx)
        .await
        .map_err(database)?;
    Ok(())
}
