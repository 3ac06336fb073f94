//! The contract of the store of records, on the embedded store and on a private PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

#[path = "support/records.rs"]
#[macro_use]
mod facts;

use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use stepgraph_nodes::service::{Records, embedded::SqliteRecords};
use tempfile::TempDir;

/// The embedded store, with the folder it stands in.
async fn embedded() -> (Records, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("records.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
    (Records::of(SqliteRecords::open(pool.unwrap()).await.unwrap()), folder)
}

/// One test for each fact, on the embedded store.
macro_rules! on_embedded {
    ($($fact:ident)+) => {
        mod embedded {
            $(#[tokio::test]
            async fn $fact() {
                let (records, _folder) = super::embedded().await;
                super::facts::$fact(records).await;
            })+
        }
    };
}

facts::every_fact!(on_embedded);

mod live {
    pub(crate) mod express;
    mod older;

    /// One test for each fact, on a database of its own.
    macro_rules! on_postgres {
        ($($fact:ident)+) => {
            mod postgres {
                $(#[tokio::test]
                async fn $fact() {
                    let records = super::express::records(super::express::SCHEMA).await;
                    super::super::facts::$fact(records).await;
                })+
            }
        };
    }

    crate::facts::every_fact!(on_postgres);
}
