//! Commits that come while another waits for the disk share a transaction, and each has its own end.
#![cfg(feature = "sqlite")]
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{future::join_all, poll};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use stepgraph::{
    CheckpointError, Checkpointer, END, Graph, START, State, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, CheckpointSource, Commit, Epoch, NewCheckpoint, Payload, RunMark, RunStatus, Seq},
};
use stepgraph_checkpoint::Sqlite;
use uuid::Uuid;

const THREADS: usize = 64;

fn key(thread: usize) -> ThreadKey {
    let thread = ThreadId::new(thread.to_string()).unwrap();
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), thread)
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

fn step(number: u64, bytes: usize) -> Commit {
    Commit {
        checkpoint: Some(NewCheckpoint {
            id: Uuid::from_u128(number.into()),
            step: i64::try_from(number).unwrap(),
            source: CheckpointSource::Step,
            payload: Payload::Snapshot(noise(bytes).into()),
            frontier: b"next".as_slice().into(),
            fingerprint: Uuid::nil(),
            state_version: 1,
            created_at: chrono::DateTime::UNIX_EPOCH,
        }),
        ..Commit::default()
    }
}

fn first() -> Commit {
    Commit {
        run: Some(RunMark {
            run: Uuid::nil().into(),
            graph: "graph".into(),
            status: RunStatus::Running,
            error: None,
        }),
        ..step(1, 100)
    }
}

/// How many transactions the write-ahead log holds: each ends in a frame that says how large the file is then.
fn transactions(file: &Path) -> usize {
    let log = std::fs::read(PathBuf::from(format!("{}-wal", file.display()))).unwrap();
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let (page, salts) = (word(&log[8..12]) as usize, &log[16..24]);
    let frames = log[32..].chunks_exact(24 + page);
    frames
        .filter(|frame| &frame[8..16] == salts && word(&frame[4..8]) > 0)
        .count()
}

async fn begun(store: &Sqlite) -> Vec<Epoch> {
    let begun = join_all((0..THREADS).map(async |thread| store.begin(&key(thread), None, first()).await.unwrap()));
    let begun = begun.await;
    assert!(begun.iter().all(|(_, head)| *head == Some(Seq(1))));
    begun.into_iter().map(|(epoch, _)| epoch).collect()
}

#[tokio::test]
async fn sixty_four_commits_at_once_take_a_few_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let store = Sqlite::open(&file).await.unwrap();
    let before = transactions(&file);
    let epochs = begun(&store).await;
    let after_beginning = transactions(&file);
    assert!(
        after_beginning - before <= 4,
        "{} for the beginnings",
        after_beginning - before
    );
    for number in 2..5 {
        let before = transactions(&file);
        let commits = epochs.iter().enumerate().map(|(thread, epoch)| {
            let store = &store;
            async move {
                store
                    .commit(&key(thread), *epoch, Some(Seq(number - 1)), step(number, 100))
                    .await
            }
        });
        for head in join_all(commits).await {
            assert_eq!(head.unwrap(), Some(Seq(number)));
        }
        let taken = transactions(&file) - before;
        assert!(taken <= 4, "{taken} for 64 commits of step {number}");
    }
}

#[tokio::test]
async fn one_that_fails_in_a_group_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let small = SqliteConnectOptions::new()
        .filename(folder.path().join("t.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("max_page_count", "80");
    let store = Sqlite::new(SqlitePoolOptions::new().connect_with(small).await.unwrap())
        .await
        .unwrap();
    let epochs = begun(&store).await;
    let commits = epochs.iter().enumerate().map(|(thread, epoch)| {
        let store = &store;
        let bytes = if thread == 40 { 400_000 } else { 100 };
        async move { store.commit(&key(thread), *epoch, Some(Seq(1)), step(2, bytes)).await }
    });
    for (thread, outcome) in join_all(commits).await.into_iter().enumerate() {
        match (thread, outcome) {
            (40, Err(CheckpointError::Full { .. })) => {}
            (_, Ok(head)) => assert_eq!(head, Some(Seq(2))),
            (_, other) => panic!("thread {thread}: {other:?}"),
        }
    }
    assert_eq!(store.get(&key(40), At::Head).await.unwrap().unwrap().info.seq, Seq(1));
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_nothing_of_the_others_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path().join("t.db")).await.unwrap();
    let epochs = begun(&store).await;
    // The first writes by itself, the others queue behind it.
    for (round, gone) in [vec![0], vec![0, 1, 2], vec![5, 63]].into_iter().enumerate() {
        let mut heads = Vec::new();
        for thread in 0..THREADS {
            heads.push(store.get(&key(thread), At::Head).await.unwrap().unwrap().info.seq);
        }
        let mut waiting = Vec::new();
        for (thread, epoch) in epochs.iter().enumerate() {
            let (store, head) = (&store, heads[thread]);
            let mut commit = Box::pin(async move {
                let commit = step(head.0 + 1, 100);
                store.commit(&key(thread), *epoch, Some(head), commit).await
            });
            assert!(poll!(&mut commit).is_pending(), "thread {thread} in round {round}");
            waiting.push((thread, commit));
        }
        waiting.retain(|(thread, _)| !gone.contains(thread));
        for (thread, commit) in waiting {
            assert_eq!(commit.await.unwrap(), Some(Seq(heads[thread].0 + 1)), "thread {thread}");
        }
        for thread in gone {
            // All of it or nothing.
            let head = store.get(&key(thread), At::Head).await.unwrap().unwrap().info.seq;
            assert!([heads[thread], Seq(heads[thread].0 + 1)].contains(&head), "{head:?}");
        }
    }
}

#[tokio::test]
async fn a_thread_that_is_there_already_begins_at_its_head() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path().join("t.db")).await.unwrap();
    let (epoch, head) = store.begin(&key(1), None, first()).await.unwrap();
    let refused = store.begin(&key(1), None, first()).await.unwrap_err();
    assert_eq!(refused.code(), "checkpoint::conflict");
    let (later, head) = store.begin(&key(1), head, step(2, 100)).await.unwrap();
    assert!(later > epoch && head == Some(Seq(2)), "{later:?} {head:?}");
    let fenced = store.commit(&key(1), epoch, head, step(3, 100)).await.unwrap_err();
    assert_eq!(fenced.code(), "checkpoint::fenced");
    // Claimed and nothing more, as a run leaves it that ends before its admission.
    let claimed = store.claim(&key(2)).await.unwrap();
    let (later, head) = store.begin(&key(2), None, first()).await.unwrap();
    assert!(later > claimed && head == Some(Seq(1)), "{later:?} {head:?}");
    assert_eq!(store.get(&key(2), At::Head).await.unwrap().unwrap().run, first().run);
}

#[test]
fn a_store_outlives_the_runtime_that_wrote_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first_runtime = runtime();
    let (store, epochs) = first_runtime.block_on(async {
        let store = Arc::new(Sqlite::open(folder.path().join("t.db")).await.unwrap());
        let epochs = begun(&store).await;
        // One is under way, one waits, and the task that would write it has not begun when its runtime ends.
        for (thread, epoch) in epochs.iter().copied().enumerate().take(2) {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(&key(thread), epoch, Some(Seq(1)), step(2, 100)).await });
        }
        tokio::task::yield_now().await;
        (store, epochs)
    });
    drop(first_runtime);
    runtime().block_on(async {
        let commits = (2..THREADS).map(|thread| {
            let (store, epoch) = (&store, epochs[thread]);
            async move { store.commit(&key(thread), epoch, Some(Seq(1)), step(2, 100)).await }
        });
        for head in join_all(commits).await {
            assert_eq!(head.unwrap(), Some(Seq(2)));
        }
    });
}

#[derive(State, Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Count {
    #[state(input)]
    count: u32,
}

#[tokio::test]
async fn a_run_of_three_steps_takes_four_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let mut g = Graph::<Count>::builder("count");
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        g.node(name, |state: Arc<Count>| {
            std::future::ready(Ok(Count::update().count(state.count + 1)))
        })
    });
    g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
    let graph = g.build().unwrap().checkpointer(Sqlite::open(&file).await.unwrap());
    for thread in 0..3 {
        let before = transactions(&file);
        let outcome = graph.run(&key(thread), CountInput { count: 0 }).await.unwrap();
        assert_eq!(outcome.done().unwrap().count, 3);
        assert_eq!(transactions(&file) - before, 4, "the admission and three steps");
    }
}
