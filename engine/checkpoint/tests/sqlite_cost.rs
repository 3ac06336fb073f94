//! What the SQLite store costs beside raw inserts of the same bytes through the same driver: bytes on disk are asserted,
//! times are printed, since a busy machine is no reason to fail.
#![cfg(feature = "sqlite")]
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test may panic and print, and this one measures time"
)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use stepgraph::{
    Checkpointer, RunId, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, CheckpointSource, Commit, Epoch, NewCheckpoint, Payload, RunMark, RunStatus, Seq},
};
use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};
use uuid::Uuid;

/// For a thousand appends of one chat message each.
const BYTES_MAX: u64 = 320_000;

fn message(number: u32) -> Vec<u8> {
    let role = if number.is_multiple_of(2) { "user" } else { "assistant" };
    let content = "lorem ipsum dolor sit amet ".repeat(4);
    format!(r#"[{{"id":"m{number:06}","role":"{role}","content":"{content}"}}]"#).into_bytes()
}

/// The floor: one prepared insert in a transaction of its own.
struct Raw(SqliteConnection);

impl Raw {
    async fn open(path: &Path, synchronous: &'static str) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .pragma("journal_mode", "WAL")
            .pragma("synchronous", synchronous);
        let mut connection = options.connect().await.unwrap();
        let table = "CREATE TABLE ck (thread TEXT NOT NULL, step INTEGER NOT NULL, body BLOB NOT NULL, \
                     PRIMARY KEY (thread, step)) WITHOUT ROWID";
        sqlx::query(table).execute(&mut connection).await.unwrap();
        Self(connection)
    }

    async fn append(&mut self, number: u32) {
        let mut turn = self.0.begin().await.unwrap();
        let insert = sqlx::query("INSERT INTO ck VALUES (?, ?, ?)");
        let insert = insert.bind("t").bind(number).bind(message(number));
        insert.execute(&mut *turn).await.unwrap();
        turn.commit().await.unwrap();
    }
}

struct Ours {
    store: Sqlite,
    key: ThreadKey,
    epoch: Epoch,
    head: Option<Seq>,
}

impl Ours {
    async fn open(path: &Path, durability: Durability) -> Self {
        let options = SqliteOptions::default().durability(durability);
        let store = Sqlite::open_with(path, options).await.unwrap();
        let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::random());
        let epoch = store.claim(&key).await.unwrap();
        Self {
            store,
            key,
            epoch,
            head: None,
        }
    }

    async fn append(&mut self, number: u32) {
        let bytes = message(number).into();
        let first = self.head.is_none();
        let checkpoint = NewCheckpoint {
            id: RunId::random().as_uuid(),
            step: i64::from(number),
            source: CheckpointSource::Step,
            payload: if first {
                Payload::Snapshot(bytes)
            } else {
                Payload::Delta(bytes)
            },
            frontier: b"{\"ready\":[\"generate\"]}".as_slice().into(),
            fingerprint: Uuid::from_u128(u128::MAX / 3),
            state_version: 1,
            created_at: chrono::DateTime::from_timestamp_micros(1_763_000_000_000_000 + i64::from(number)).unwrap(),
        };
        let commit = Commit {
            checkpoint: Some(checkpoint),
            run: first.then(|| RunMark {
                run: RunId::random(),
                graph: "chat".into(),
                status: RunStatus::Running,
                error: None,
            }),
            ..Commit::default()
        };
        self.head = self
            .store
            .commit(&self.key, self.epoch, self.head, commit)
            .await
            .unwrap();
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn compare(durability: Durability, synchronous: &'static str, appends: u32) {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = Raw::open(&folder.path().join("raw.db"), synchronous).await;
    let file = folder.path().join("ours.db");
    let mut ours = Ours::open(&file, durability).await;
    let (mut raw_times, mut our_times) = (Vec::new(), Vec::new());
    for number in 0..appends {
        let start = Instant::now();
        raw.append(number).await;
        let between = Instant::now();
        ours.append(number).await;
        raw_times.push(between - start);
        our_times.push(between.elapsed());
    }
    let (raw_time, our_time) = (median(&mut raw_times), median(&mut our_times));
    let ratio = our_time.as_secs_f64() / raw_time.as_secs_f64();
    println!("{synchronous}: an append takes {our_time:?}, a raw insert {raw_time:?}, ratio {ratio:.2} (medians)");

    let start = Instant::now();
    let parts = ours.store.get(&ours.key, At::Head).await.unwrap().unwrap().parts;
    println!(
        "{synchronous}: a chain of {} parts is read in {:?}",
        parts.len(),
        start.elapsed()
    );
    assert_eq!(parts.len(), appends as usize);

    drop(ours);
    let mut connection = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut connection)
        .await
        .unwrap();
    let bytes = std::fs::metadata(&file).unwrap().len();
    let wal = std::fs::metadata(folder.path().join("ours.db-wal")).map_or(0, |meta| meta.len());
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    println!("{synchronous}: {bytes} bytes on disk and {wal} in the log for {payload} bytes of payload");
    assert!(
        bytes + wal <= BYTES_MAX,
        "{bytes} + {wal} bytes for {appends} appends, at most {BYTES_MAX}"
    );
}

#[tokio::test]
async fn a_thousand_appends_take_twice_their_own_bytes_at_most() {
    compare(Durability::Normal, "NORMAL", 1000).await;
    // The disk's own time, mostly: a few tell it.
    compare(Durability::Full, "FULL", 100).await;
}
