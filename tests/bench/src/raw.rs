//! Raw rows on disk: the least that B7, B8 and B11 can cost, and how much a database holds.

use std::{fs, path::Path};

use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::measure::{Spent, once};

/// Raw prepared inserts of these bodies, one transaction each, over a connection of one driver or the other.
macro_rules! inserted {
    ($connection:expr, $table:literal, $insert:literal, $rows:expr) => {{
        let mut connection = $connection;
        sqlx::query($table).execute(&mut connection).await.unwrap();
        let spent = once(async {
            for (thread, step, body) in $rows {
                let mut turn = connection.begin().await.unwrap();
                let insert = sqlx::query($insert).bind(thread).bind(step).bind(body.as_slice());
                insert.execute(&mut *turn).await.unwrap();
                turn.commit().await.unwrap();
            }
        })
        .await;
        connection.close().await.unwrap();
        spent
    }};
}

/// In SQLite, in the journal mode and at the durability of the store.
pub(crate) async fn inserts(file: std::path::PathBuf, rows: &[(String, i64, Vec<u8>)]) -> Spent {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    inserted!(
        SqliteConnection::connect_with(&options).await.unwrap(),
        "CREATE TABLE ck(thread TEXT NOT NULL, step INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(thread, step)) WITHOUT ROWID",
        "INSERT INTO ck VALUES (?, ?, ?)",
        rows
    )
}

/// In PostgreSQL, each commit waiting for the disk.
pub(crate) async fn inserts_in_postgres(url: &str, rows: &[(String, i64, Vec<u8>)]) -> Spent {
    inserted!(
        PgConnection::connect(url).await.unwrap(),
        "CREATE TABLE ck(thread TEXT NOT NULL, step BIGINT NOT NULL, body BYTEA NOT NULL, PRIMARY KEY(thread, step))",
        "INSERT INTO ck VALUES ($1, $2, $3)",
        rows
    )
}

/// Bytes of the files in a folder, once the write-ahead log of its database is folded in.
pub(crate) async fn folder_bytes(folder: &Path, database: &str) -> u64 {
    let options = SqliteConnectOptions::new().filename(folder.join(database));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let fold = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
    fold.execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Bytes of all tables in a database, with their indexes.
pub(crate) async fn tables_bytes(url: &str) -> u64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let size = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::BIGINT FROM pg_class c \
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = 'public'";
    let bytes: i64 = sqlx::query_scalar(size).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    bytes.unsigned_abs()
}
