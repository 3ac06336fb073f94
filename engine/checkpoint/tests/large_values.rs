//! Large values in a SQLite file: kept once, compressed, gone with the last checkpoint that held them.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use sqlx::{Connection, SqliteConnection};
use stepgraph::{
    Checkpointer, RunId, TenantId, ThreadId, ThreadKey,
    checkpoint::{self, At, CheckpointSource, Commit, Keep, NewCheckpoint, Payload, RunMark, RunStatus, Seq, Thinning},
};
use stepgraph_checkpoint::{
    Durability, LARGE_VALUE_BYTES, Sealed, Sqlite, SqliteOptions, conformance,
    seal::{KeyId, MasterKeys},
};
use uuid::Uuid;

#[path = "contract/large_values.rs"]
mod large_values;

use large_values::{WRITTEN, hundred_steps, words};

async fn raw(file: &Path) -> SqliteConnection {
    SqliteConnection::connect(&file.display().to_string()).await.unwrap()
}

async fn open(file: &Path, values_from: usize) -> Sqlite {
    let options = SqliteOptions::default()
        .durability(Durability::Normal)
        .values_from(values_from);
    Sqlite::open_with(file, options).await.unwrap()
}

async fn number(file: &Path, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut raw(file).await).await.unwrap()
}

/// Pages in use, whether they have come from the log to the file yet or not.
async fn used(file: &Path) -> u64 {
    let pages = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    number(file, pages).await.unsigned_abs()
}

fn key(thread: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(thread).unwrap())
}

/// Stores on files of their own, and the newest of these.
struct Files(tempfile::TempDir, Cell<u32>);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), Cell::new(0))
    }

    fn newest(&self) -> PathBuf {
        self.0.path().join(format!("{}.db", self.1.get()))
    }

    async fn next(&self, values_from: usize) -> Sqlite {
        self.1.set(self.1.get() + 1);
        open(&self.newest(), values_from).await
    }
}

fn state(text: &str) -> Vec<u8> {
    let mut bytes = b"\x81\xa4text\xdb".to_vec();
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn commit(number: u64, payload: Payload) -> Commit {
    let checkpoint = NewCheckpoint {
        id: Uuid::from_u128(number.into()),
        step: i64::try_from(number).unwrap(),
        source: CheckpointSource::Step,
        payload,
        frontier: b"next".as_slice().into(),
        fingerprint: Uuid::nil(),
        state_version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
    };
    Commit {
        checkpoint: Some(checkpoint),
        ..Commit::default()
    }
}

fn snapshot(number: u64, text: &str) -> Commit {
    commit(number, Payload::Snapshot(state(text).into()))
}

#[tokio::test]
async fn sqlite_keeps_a_large_value_once_and_lets_it_go_with_the_last_that_held_it() {
    let files = Files::new();
    let make = async || files.next(LARGE_VALUE_BYTES).await;
    let report = conformance::check_sizes(make, async |_: &Sqlite| used(&files.newest()).await).await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn sealed_sqlite_keeps_a_large_value_once_too() {
    let files = Files::new();
    let make = async || Sealed::new(files.next(LARGE_VALUE_BYTES).await, MasterKeys::new(KeyId(1), &[7; 32]));
    let bytes = async |_: &Sealed<Sqlite>| used(&files.newest()).await;
    let report = conformance::check_sizes(make, bytes).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn sqlite_holds_to_every_fact_whatever_is_large() {
    for values_from in [1, usize::MAX] {
        let files = Files::new();
        let report = conformance::check(async || files.next(values_from).await).await;
        assert!(report.passed(), "{values_from}: {report}");
    }
}

/// What a thread takes whose states hold a text of 100 kB, over a hundred steps that each write another field.
#[tokio::test]
async fn a_hundred_steps_beside_a_large_text_take_little_more_than_what_they_write() {
    for (note_bytes, runs, [most, ..]) in WRITTEN {
        let files = Files::new();
        let mut sizes = [0; 2];
        for (size, values_from) in sizes.iter_mut().zip([usize::MAX, LARGE_VALUE_BYTES]) {
            hundred_steps(files.next(values_from).await, note_bytes, runs).await;
            *size = used(&files.newest()).await;
        }
        let [whole, apart] = sizes;
        println!("SQLite, notes of {note_bytes} bytes in {runs} runs: {whole} bytes whole, {apart} apart");
        assert!(apart <= most && apart < whole, "{apart} bytes, at most {most}");
    }
}

#[tokio::test]
async fn from_how_many_bytes_on_a_value_is_large_is_told_and_whatever_was_told_before_reads_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let texts = [words(1, 50), words(2, 5_000)];
    for (told, apart) in [(usize::MAX, 0), (LARGE_VALUE_BYTES, 1), (40, 2)] {
        let store = open(&file, told).await;
        let key = key(&told.to_string());
        let (epoch, mut head) = (store.claim(&key).await.unwrap(), None);
        for (number, text) in (1..).zip(&texts) {
            head = store.commit(&key, epoch, head, snapshot(number, text)).await.unwrap();
        }
        let kept = "SELECT count(*) FROM checkpoint_values v JOIN checkpoint_threads t ON t.number = v.thread \
                    WHERE t.number = (SELECT max(number) FROM checkpoint_threads)";
        assert_eq!(number(&file, kept).await, apart, "{told}");
    }
    let reader = open(&file, 1).await;
    for told in [usize::MAX, LARGE_VALUE_BYTES, 40] {
        for (seq, text) in (1..).zip(&texts) {
            let found = reader
                .get(&key(&told.to_string()), At::Seq(Seq(seq)))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(found.parts, [state(text).into()], "{told}");
        }
    }
}

/// Those that begin at once share a transaction, and each has its own.
#[tokio::test]
async fn a_hundred_threads_begin_at_once_with_large_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let store = open(&file, LARGE_VALUE_BYTES).await;
    let begin = |number: u32| {
        let (store, key) = (&store, key(&number.to_string()));
        async move {
            let commit = Commit {
                run: Some(RunMark {
                    run: RunId::random(),
                    graph: "graph".into(),
                    status: RunStatus::Running,
                    error: None,
                }),
                // Every third is small, and every fifth the same as others.
                ..snapshot(
                    1,
                    &words(number % 5, if number.is_multiple_of(3) { 100 } else { 20_000 }),
                )
            };
            let (epoch, head) = store.begin(&key, None, commit).await.unwrap();
            store
                .commit(&key, epoch, head, snapshot(2, &words(number, 9_000)))
                .await
                .unwrap();
        }
    };
    join_all((0..100).map(begin)).await;
    for number in 0..100_u32 {
        let first = store
            .get(&key(&number.to_string()), At::Seq(Seq(1)))
            .await
            .unwrap()
            .unwrap();
        let length = if number.is_multiple_of(3) { 100 } else { 20_000 };
        assert_eq!(first.parts, [state(&words(number % 5, length)).into()]);
        let second = store.get(&key(&number.to_string()), At::Head).await.unwrap().unwrap();
        assert_eq!(second.parts, [state(&words(number, 9_000)).into()]);
    }
    assert_eq!(number(&file, "SELECT count(*) FROM checkpoint_values").await, 100 + 66);
}

const LEFT: &str =
    "SELECT (SELECT count(*) FROM checkpoint_values) * 1000 + (SELECT count(*) FROM checkpoint_value_uses)";

#[tokio::test]
async fn no_value_and_no_name_of_one_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let store = open(&file, LARGE_VALUE_BYTES).await;
    let (one, other) = (key("one"), key("other"));
    for key in [&one, &other, &one.child("inside")] {
        let (epoch, mut head) = (store.claim(key).await.unwrap(), None);
        for number in 1..=6 {
            let text = words(number, 10_000);
            head = store
                .commit(key, epoch, head, snapshot(u64::from(number), &text))
                .await
                .unwrap();
        }
    }
    assert_eq!(number(&file, LEFT).await, 18_018);
    // A number that is not there is passed over, and leaves no value of what it would have held.
    let nobody = Thinning {
        rebased: vec![(Seq(99), vec![state(&words(99, 10_000)).into()])],
        removed: vec![Seq(98)],
    };
    store.thin(&one, nobody).await.unwrap();
    assert_eq!(number(&file, LEFT).await, 18_018);
    let thinned = checkpoint::thin(&store, &one, Keep::last(2), chrono::DateTime::UNIX_EPOCH)
        .await
        .unwrap();
    assert_eq!(thinned.removed, 8);
    assert_eq!(number(&file, LEFT).await, 10_010);
    store.delete(&one).await.unwrap();
    assert_eq!(number(&file, LEFT).await, 6_006);
    store.erase(&other.tenant).await.unwrap();
    assert_eq!(number(&file, LEFT).await, 0);
}

/// A refused thinning, and a refused commit, change nothing of the values.
#[tokio::test]
async fn what_is_refused_leaves_the_values_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let store = open(&file, LARGE_VALUE_BYTES).await;
    let key = key("t");
    let (epoch, mut head) = (store.claim(&key).await.unwrap(), None);
    for number in 1..=3 {
        let text = words(number, 10_000);
        head = store
            .commit(&key, epoch, head, snapshot(u64::from(number), &text))
            .await
            .unwrap();
    }
    let head_goes = Thinning {
        rebased: vec![(Seq(2), vec![state(&words(50, 10_000)).into()])],
        removed: vec![Seq(1), Seq(3)],
    };
    assert_eq!(
        store.thin(&key, head_goes).await.unwrap_err().code(),
        "checkpoint::in_use"
    );
    let stale = store
        .commit(&key, epoch, Some(Seq(1)), snapshot(9, &words(9, 10_000)))
        .await;
    assert_eq!(stale.unwrap_err().code(), "checkpoint::conflict");
    assert_eq!(number(&file, LEFT).await, 3_003);
}

#[tokio::test]
async fn a_value_that_is_damaged_or_gone_is_told_and_never_guessed() {
    let damages = [
        "DELETE FROM checkpoint_values",
        "DELETE FROM checkpoint_value_uses",
        "UPDATE checkpoint_values SET body = x''",
        "UPDATE checkpoint_values SET body = CAST(x'07' || body AS BLOB)",
        "UPDATE checkpoint_values SET body = CAST(substr(body, 1, 2000) AS BLOB)",
        "UPDATE checkpoint_values SET name = x'00'; UPDATE checkpoint_value_uses SET name = x'00'",
        "UPDATE checkpoint_rows SET payload = CAST(substr(payload, 1, 20) AS BLOB)",
        "UPDATE checkpoint_rows SET payload = x''",
        "UPDATE checkpoint_rows SET payload = CAST(x'09' || substr(payload, 2) AS BLOB)",
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.db");
        let store = open(&file, LARGE_VALUE_BYTES).await;
        let key = key("t");
        let epoch = store.claim(&key).await.unwrap();
        store
            .commit(&key, epoch, None, snapshot(1, &words(1, 10_000)))
            .await
            .unwrap();
        store.get(&key, At::Head).await.unwrap();
        sqlx::raw_sql(damage).execute(&mut raw(&file).await).await.unwrap();
        let found = store.get(&key, At::Head).await.map(|_| damage).unwrap_err();
        assert_eq!(found.code(), "checkpoint::corrupt", "{damage}: {found}");
        assert!(found.to_string().contains("acme/t"), "{found}");
    }
}
