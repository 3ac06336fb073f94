//! How many calls to SQLite each verb makes. Alone in its binary: it listens to everything sqlx says.
#![cfg(feature = "sqlite")]

use std::sync::atomic::{AtomicUsize, Ordering};

use stepgraph::{
    CheckpointError, Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, CheckpointSource, Commit, NewCheckpoint, Page, Payload, RecordKind, RunMark, RunStatus, Seq, TaskRecord,
    },
};
use stepgraph_checkpoint::{Sqlite, SqliteOptions};
use tracing::{Event, Metadata, Subscriber, span};
use uuid::Uuid;

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Counts the statements that sqlx reports.
struct Counter;

impl Subscriber for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &Event<'_>) {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

async fn calls<T>(work: impl Future<Output = T>) -> (T, usize) {
    let before = CALLS.load(Ordering::SeqCst);
    let value = work.await;
    (value, CALLS.load(Ordering::SeqCst) - before)
}

fn delta(number: i64) -> NewCheckpoint {
    NewCheckpoint {
        id: Uuid::from_u128(u128::from(number.unsigned_abs())),
        step: number,
        source: CheckpointSource::Step,
        payload: Payload::Delta(b"delta".as_slice().into()),
        frontier: b"next".as_slice().into(),
        fingerprint: Uuid::nil(),
        state_version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_commit_takes_one_call_and_a_read_one() {
    tracing::subscriber::set_global_default(Counter).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::default().readers_max(1);
    let store = Sqlite::open_with(folder.path().join("t.db"), options).await.unwrap();
    let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::random());
    let epoch = store.claim(&key).await.unwrap();
    // The first read opens a connection, whose settings are statements too.
    assert_eq!(store.get(&key, At::Head).await.unwrap(), None);
    let mut head = None;
    for number in 0..100 {
        let commit = Commit {
            checkpoint: Some(delta(number)),
            run: Some(RunMark {
                run: Uuid::nil().into(),
                graph: "graph".into(),
                status: RunStatus::Running,
                error: None,
            }),
            ..Commit::default()
        };
        let (written, count) = calls(store.commit(&key, epoch, head, commit)).await;
        head = written.unwrap();
        assert_eq!(count, 1, "a commit of a checkpoint and a run");
    }
    let record = |task: &str| TaskRecord {
        task: task.to_owned(),
        kind: RecordKind::Output,
        key: String::new(),
        body: b"update".as_slice().into(),
    };
    let commit = Commit {
        records: vec![record("a"), record("b")],
        ..Commit::default()
    };
    let (written, count) = calls(store.commit(&key, epoch, head, commit)).await;
    assert_eq!(written.unwrap(), head);
    assert_eq!(count, 4, "two records between fence and end");

    for at in [At::Head, At::Seq(head.unwrap())] {
        let (found, count) = calls(store.get(&key, at)).await;
        let found = found.unwrap().unwrap();
        assert_eq!((found.parts.len(), found.records.len()), (100, 2));
        assert_eq!(count, 1, "a chain of a hundred with its records");
    }
    together(&store).await;
    large(&store, &key.child("large")).await;
    assert_eq!(calls(store.list(&key, Page::default())).await.1, 1, "a history");
    assert_eq!(calls(store.unfinished("graph", 10)).await.1, 1, "the unfinished");
    assert_eq!(calls(store.delete(&key)).await.1, 2, "a deletion");
}

#[expect(clippy::unwrap_used, reason = "a test may panic")]
/// Large values take a call for up to 64 of them and one for the commit; a read takes none more, and nor does a commit
/// without such.
async fn large(store: &Sqlite, key: &ThreadKey) {
    let epoch = store.claim(key).await.unwrap();
    let text = |number: u8| [&[0xdb, 0, 0, 0x10, 0][..], &[number; 4096]].concat();
    let list = |values: u8| [&[0xdc, 0, values][..], &(0..values).flat_map(text).collect::<Vec<_>>()].concat();
    let payload = |bytes: Vec<u8>| Payload::Delta(bytes.into());
    let mut head = None;
    for (payload, wanted) in [
        (payload(text(1)), 3),
        (payload(vec![0x01]), 1),
        (payload(list(64)), 3),
        // 64, 16 and 4.
        (payload(list(84)), 2 + 3),
    ] {
        let new = NewCheckpoint { payload, ..delta(1) };
        let commit = Commit {
            checkpoint: Some(new),
            ..Commit::default()
        };
        let (written, count) = calls(store.commit(key, epoch, head, commit)).await;
        head = written.unwrap();
        assert_eq!(count, wanted, "{head:?}");
    }
    let (found, count) = calls(store.get(key, At::Head)).await;
    assert_eq!((found.unwrap().unwrap().parts.len(), count), (4, 1));
}

#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
/// Commits that meet share a transaction: 64 of them, of which one is refused and the caller of another has gone.
async fn together(store: &Sqlite) {
    const THREADS: usize = 64;
    let mut held = Vec::new();
    for number in 0..THREADS {
        let name = ThreadId::new(format!("t{number}")).unwrap();
        let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), name);
        let epoch = store.claim(&key).await.unwrap();
        held.push((key, epoch));
    }
    // The first is claimed anew, so that its commit is fenced off.
    store.claim(&held[0].0).await.unwrap();
    let commit = || Commit {
        checkpoint: Some(delta(0)),
        ..Commit::default()
    };
    let (outcomes, count) = calls(async {
        let mut gone = Box::pin(store.commit(&held[1].0, held[1].1, None, commit()));
        let commits = held.iter().enumerate().filter(|(number, _)| *number != 1);
        let mut rest = Box::pin(futures_util::future::join_all(
            commits.map(|(_, (key, epoch))| store.commit(key, *epoch, None, commit())),
        ));
        // Both are begun: the one has the turn, the others wait. Then its caller goes away.
        assert!(futures_util::poll!(&mut gone).is_pending());
        assert!(futures_util::poll!(&mut rest).is_pending());
        drop(gone);
        rest.await
    })
    .await;

    assert!(
        matches!(outcomes[0], Err(CheckpointError::Fenced { .. })),
        "{:?}",
        outcomes[0]
    );
    for outcome in &outcomes[1..] {
        assert_eq!(outcome.as_ref().unwrap(), &Some(Seq(1)));
    }
    assert!(count < THREADS / 2, "{count} calls for {THREADS} commits");
    for (key, _) in &held[2..] {
        assert_eq!(store.get(key, At::Head).await.unwrap().unwrap().info.seq, Seq(1));
    }
}
