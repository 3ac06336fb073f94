//! What holds for the SQLite store beyond the facts of every store.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use stepgraph::{
    CheckpointError, Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, CheckpointSource, Commit, Epoch, NewCheckpoint, OutboxMessage, Page, Payload, RecordKind, RunMark,
        RunStatus, Seq, TaskRecord,
    },
};
use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

fn key(thread: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(thread).unwrap())
}

/// Bytes that nothing makes shorter, so that they fill a disk.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [first, ..] = state.to_be_bytes();
        first
    };
    (0..bytes).map(next).collect()
}

fn checkpoint(number: u64, bytes: usize) -> NewCheckpoint {
    NewCheckpoint {
        id: Uuid::from_u128(number.into()),
        step: i64::try_from(number).unwrap(),
        source: CheckpointSource::Step,
        payload: Payload::Snapshot(noise(bytes).into()),
        frontier: b"next".as_slice().into(),
        fingerprint: Uuid::nil(),
        state_version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

fn only(checkpoint: NewCheckpoint) -> Commit {
    Commit {
        checkpoint: Some(checkpoint),
        ..Commit::default()
    }
}

/// A checkpoint, a record at the one before, a message and the run.
fn everything(number: u64) -> Commit {
    Commit {
        records: vec![TaskRecord {
            task: format!("task {number}"),
            kind: RecordKind::Output,
            key: String::new(),
            body: b"update".as_slice().into(),
        }],
        run: Some(RunMark {
            run: Uuid::from_u128(number.into()).into(),
            graph: "graph".into(),
            status: RunStatus::Running,
            error: None,
        }),
        outbox: vec![OutboxMessage {
            id: Uuid::from_u128(number.into()),
            topic: "topic".to_owned(),
            body: Vec::new(),
        }],
        ..only(checkpoint(number, 100))
    }
}

async fn begun(store: &Sqlite, key: &ThreadKey) -> Epoch {
    let epoch = store.claim(key).await.unwrap();
    store.commit(key, epoch, None, only(checkpoint(1, 100))).await.unwrap();
    epoch
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
}

async fn raw(path: &Path) -> SqliteConnection {
    options(path).connect().await.unwrap()
}

#[tokio::test]
async fn a_thread_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a/b/threads.db");
    let store = Sqlite::open(&file).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
    let before = (
        store.get(&key, At::Head).await.unwrap(),
        store.get(&key, At::Seq(Seq(1))).await.unwrap(),
    );
    drop(store);
    let store = Sqlite::open(&file).await.unwrap();
    let after = (
        store.get(&key, At::Head).await.unwrap(),
        store.get(&key, At::Seq(Seq(1))).await.unwrap(),
    );
    assert_eq!(after, before);
    assert_eq!(store.unfinished("graph", 10).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(store.outbox("topic", 10).await.unwrap().len(), 1);
    store
        .commit(&key, epoch, Some(Seq(2)), only(checkpoint(3, 100)))
        .await
        .unwrap();
    assert!(store.claim(&key).await.unwrap() > epoch);
}

#[tokio::test]
async fn what_one_store_has_written_another_on_the_file_reads_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let (one, two) = (Sqlite::open(&file).await.unwrap(), Sqlite::open(&file).await.unwrap());
    let key = key("t");
    let epoch = begun(&one, &key).await;
    for number in 2..50 {
        let head = one
            .commit(&key, epoch, Some(Seq(number - 1)), only(checkpoint(number, 100)))
            .await
            .unwrap();
        assert_eq!(two.get(&key, At::Head).await.unwrap().map(|found| found.info.seq), head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_writers_in_several_stores_on_one_file_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(Arc::new(Sqlite::open(&file).await.unwrap()));
    }
    let key = key("t");
    let epoch = begun(&stores[0], &key).await;
    let mut writers = JoinSet::new();
    for number in 2..102 {
        let (store, key) = (stores[number % 4].clone(), key.clone());
        let commit = only(checkpoint(number as u64, 100));
        writers.spawn(async move { store.commit(&key, epoch, Some(Seq(1)), commit).await });
    }
    let outcomes = writers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let conflicts = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(CheckpointError::Conflict { .. })));
    assert_eq!(conflicts.count(), 99);
    assert_eq!(stores[1].list(&key, Page::default()).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_may_be_opened_by_many_at_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.db");
        let mut openers = JoinSet::new();
        for _ in 0..8 {
            let file = file.clone();
            openers.spawn(async move { Sqlite::open(file).await.map(drop) });
        }
        for opened in openers.join_all().await {
            opened.unwrap();
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_commits_go_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let small = options(&folder.path().join("t.db")).pragma("max_page_count", "80");
    let pool = SqlitePoolOptions::new().connect_with(small).await.unwrap();
    let store = Sqlite::new(pool).await.unwrap();
    let (first, second) = (key("first"), key("second"));
    let epoch = begun(&store, &first).await;
    let filled = store
        .commit(&first, epoch, Some(Seq(1)), only(checkpoint(2, 100_000)))
        .await
        .unwrap();
    for _ in 0..3 {
        let full = store
            .commit(&first, epoch, filled, only(checkpoint(3, 400_000)))
            .await
            .unwrap_err();
        assert_eq!(full.code(), "checkpoint::full");
        assert!(full.is_retryable() && full.to_string().contains("free space"), "{full}");
    }
    assert_eq!(store.get(&first, At::Head).await.unwrap().unwrap().info.seq, Seq(2));
    store.delete(&first).await.unwrap();
    let epoch = begun(&store, &second).await;
    store
        .commit(&second, epoch, Some(Seq(1)), only(checkpoint(2, 100_000)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_locked_by_another_process_is_unavailable_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let options = SqliteOptions::default().busy_timeout(Duration::from_millis(1));
    let store = Sqlite::open_with(&file, options).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    let mut other = raw(&file).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let busy = store
        .commit(&key, epoch, Some(Seq(1)), only(checkpoint(2, 100)))
        .await
        .unwrap_err();
    assert_eq!(busy.code(), "checkpoint::unavailable");
    assert!(
        busy.is_retryable() && busy.to_string().contains("busy_timeout"),
        "{busy}"
    );
    assert!(store.get(&key, At::Head).await.unwrap().is_some(), "reading goes on");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store
        .commit(&key, epoch, Some(Seq(1)), only(checkpoint(2, 100)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_write_waits_for_another_process_within_the_busy_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let store = Sqlite::open(&file).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    let mut other = raw(&file).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let commit = store.commit(&key, epoch, Some(Seq(1)), only(checkpoint(2, 100)));
    let release = async { sqlx::query("ROLLBACK").execute(&mut other).await.unwrap() };
    let (written, _) = tokio::join!(commit, release);
    assert_eq!(written.unwrap(), Some(Seq(2)));
}

#[tokio::test]
async fn what_is_no_database_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "not a database, but long enough to look like a file with a header".repeat(20),
    )
    .unwrap();
    let refused = Sqlite::open(&text).await.unwrap_err().to_string();
    assert!(refused.contains("choose another path"), "{refused}");
    let refused = Sqlite::open(folder.path()).await.unwrap_err().to_string();
    assert!(refused.contains("check that the path is a file"), "{refused}");
    let refused = Sqlite::open(text.join("below/a/file.db"))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("cannot make the folder"), "{refused}");
}

#[tokio::test]
async fn a_pool_that_promises_too_little_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let memory = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let refused = Sqlite::new(memory).await.unwrap_err().to_string();
    assert!(refused.contains("Wal"), "{refused}");
    let careless = options(&folder.path().join("t.db")).synchronous(SqliteSynchronous::Off);
    let careless = SqlitePoolOptions::new().connect_with(careless).await.unwrap();
    let refused = Sqlite::new(careless).await.unwrap_err().to_string();
    assert!(refused.contains("synchronous"), "{refused}");
}

#[tokio::test]
async fn the_durability_is_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let full = Sqlite::open(folder.path().join("a.db")).await.unwrap();
    assert_eq!(full.durability(), Durability::Full);
    let options = SqliteOptions::default().durability(Durability::Normal);
    let normal = Sqlite::open_with(folder.path().join("b.db"), options).await.unwrap();
    assert_eq!(normal.durability(), Durability::Normal);
}

#[tokio::test]
async fn other_tables_and_migrations_in_the_file_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let pool = SqlitePoolOptions::new()
        .connect_with(options(&folder.path().join("t.db")))
        .await
        .unwrap();
    let theirs = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
                  installed_on TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT); \
                  INSERT INTO _sqlx_migrations VALUES (1, 'theirs', NULL, TRUE, x'00', 0); \
                  CREATE TABLE documents (id TEXT); INSERT INTO documents VALUES ('kept')";
    sqlx::raw_sql(theirs).execute(&pool).await.unwrap();
    let store = Sqlite::new(pool.clone()).await.unwrap();
    begun(&store, &key("t")).await;
    Sqlite::new(pool.clone()).await.unwrap();
    let kept: String = sqlx::query_scalar("SELECT id FROM documents")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(kept, "kept");
}

#[tokio::test]
async fn a_file_of_a_later_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    drop(Sqlite::open(&file).await.unwrap());
    let later = "INSERT INTO checkpoint_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', TRUE, x'00', 0)";
    sqlx::query(later).execute(&mut raw(&file).await).await.unwrap();
    let refused = Sqlite::open(&file).await.unwrap_err().to_string();
    assert!(refused.contains("later release"), "{refused}");
}

#[tokio::test]
async fn rows_that_make_no_sense_are_named_and_not_guessed() {
    let damages = [
        "UPDATE checkpoint_rows SET created_at = 9223372036854775807",
        "UPDATE checkpoint_rows SET id = x'00'",
        "UPDATE checkpoint_rows SET state_version = -1",
        "UPDATE checkpoint_rows SET kind = 2, payload = x'ff000000'",
        "UPDATE checkpoint_records SET kind = 'nonsense'",
        "UPDATE checkpoint_threads SET status = 'nonsense'",
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.db");
        let store = Sqlite::open(&file).await.unwrap();
        let key = key("t");
        let epoch = begun(&store, &key).await;
        store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
        sqlx::query(damage).execute(&mut raw(&file).await).await.unwrap();
        let found = store.get(&key, At::Seq(Seq(1))).await.unwrap_err();
        assert_eq!(found.code(), "checkpoint::corrupt", "{damage}: {found}");
        assert!(found.to_string().contains("acme/t"), "{found}");
    }
}

#[tokio::test]
async fn deleting_leaves_no_row_of_the_thread_whatever_the_pool_says_of_foreign_keys() {
    let folder = tempfile::tempdir().unwrap();
    let loose = options(&folder.path().join("t.db")).foreign_keys(false);
    let pool = SqlitePoolOptions::new().connect_with(loose).await.unwrap();
    let store = Sqlite::new(pool.clone()).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
    store.branch(&key, epoch, Seq(1), "retry").await.unwrap();
    store.tag(&key, "kept", Some(Seq(1))).await.unwrap();
    let rows = "SELECT (SELECT count(*) FROM checkpoint_threads), (SELECT count(*) FROM checkpoints), \
                (SELECT count(*) FROM checkpoint_records), (SELECT count(*) FROM checkpoint_branches), \
                (SELECT count(*) FROM checkpoint_outbox), (SELECT count(*) FROM checkpoint_tags)";
    let before: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(rows).fetch_one(&pool).await.unwrap();
    assert_eq!(before, (1, 2, 1, 2, 1, 1));
    store.delete(&key).await.unwrap();
    let after: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(rows).fetch_one(&pool).await.unwrap();
    assert_eq!(after, (0, 0, 0, 0, 0, 0));
}
