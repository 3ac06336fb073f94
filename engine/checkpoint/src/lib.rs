//! Stores for the checkpoints of `stepgraph`, and the suite that says what a store must do.
//!
//! | feature | gives |
//! |---|---|
//! | `sqlite` (default) | [`Sqlite`]: checkpoints in one file, each commit one transaction |
//! | `postgres` | [`Postgres`]: checkpoints in PostgreSQL, each commit one statement, which those that wait share |
//! | `redis` | [`Redis`]: checkpoints in Redis, each commit one script |
//! | `seal` | [`Sealed`]: any of them with what it keeps compressed and sealed, under keys of each tenant's own |
//! | `tls` | TLS to both servers, with rustls: `?sslmode=verify-full` for PostgreSQL, `rediss://` for Redis |
//! | `testing` | [`conformance`]: named facts about any [`Checkpointer`](stepgraph::Checkpointer), for stores of your own |
//!
//! The trait and the in-memory reference store live in `stepgraph` itself, which knows no driver.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod durability;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod row;
#[cfg(feature = "seal")]
pub mod seal;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis", feature = "seal"))]
mod value;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod waiting;

#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisOptions};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use durability::Durability;
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresOptions};
#[cfg(feature = "seal")]
pub use seal::Sealed;
#[cfg(feature = "sqlite")]
pub use sqlite::{Sqlite, SqliteOptions};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis", feature = "seal"))]
pub use value::LARGE_VALUE_BYTES;
