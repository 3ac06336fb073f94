//! A store that never waits means the same by its short ways as by its own methods.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Clock, Context, END, Graph, Memory, OnBusy, RunError, RunId, START, State, Sum, ThreadKey,
    checkpoint::{
        At, CheckpointError, CheckpointSource, Checkpointer, Commit, Epoch, Line, NewCheckpoint, OutboxMessage,
        Payload, RunMark, RunStatus, Seq,
    },
};
use support::threads::thread;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Count {
    #[state(reducer = Sum)]
    n: u64,
}

fn graph() -> Graph<Count> {
    let mut g = Graph::<Count>::builder("count");
    let [first, second] =
        ["first", "second"].map(|name| g.node(name, |_: Arc<Count>| ready(Ok(Count::update().n(1_u64)))));
    g.edge(START, first).edge(first, second).edge(second, END);
    g.build().unwrap()
}

fn message() -> Commit {
    Commit {
        outbox: vec![OutboxMessage {
            id: uuid::Uuid::from_u128(1),
            topic: "t".to_owned(),
            body: Vec::new(),
        }],
        ..Commit::default()
    }
}

/// A line of another's making, which says no more than it must.
struct OnlyCommits(Arc<dyn Line>);

impl Line for OnlyCommits {
    fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        self.0.commit(key, epoch, expected, commit)
    }
}

fn checkpoint(step: i64) -> NewCheckpoint {
    NewCheckpoint {
        id: uuid::Uuid::from_u128(step.unsigned_abs().into()),
        step,
        source: CheckpointSource::Step,
        payload: Payload::Snapshot(vec![1, 2, 3].into()),
        frontier: vec![4].into(),
        fingerprint: uuid::Uuid::from_u128(7),
        state_version: 1,
        created_at: DateTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_line_is_extended_as_by_a_commit_of_the_same() {
    let run = |status| RunMark {
        run: RunId::from(uuid::Uuid::from_u128(9)),
        graph: "count".into(),
        status,
        error: None,
    };
    let key = thread("t");
    let mut threads = Vec::new();
    for way in 0..3 {
        let store = Memory::new();
        let (epoch, line) = store.at_once().unwrap().claim(&key).unwrap();
        let only_commits = OnlyCommits(Arc::clone(&line));
        let write = |epoch, expected, step, run| match way {
            0 => line.extend(&key, epoch, expected, checkpoint(step), run),
            1 => only_commits.extend(&key, epoch, expected, checkpoint(step), run),
            _ => {
                let checkpoint = Some(checkpoint(step));
                let commit = Commit {
                    checkpoint,
                    run,
                    ..Commit::default()
                };
                line.commit(&key, epoch, expected, commit)
            }
        };
        let first = write(epoch, None, 1, Some(run(RunStatus::Running))).unwrap();
        let fenced = write(Epoch(epoch.0 + 1), first, 2, None);
        assert!(matches!(fenced, Err(CheckpointError::Fenced { .. })), "{way}");
        let behind = write(epoch, None, 2, None);
        assert!(matches!(behind, Err(CheckpointError::Conflict { .. })), "{way}");
        let second = write(epoch, first, 2, None).unwrap();
        let third = write(epoch, second, 3, Some(run(RunStatus::Done))).unwrap();
        let mut found = Vec::new();
        for seq in [first, second, third] {
            found.push(store.get(&key, At::Seq(seq.unwrap())).await.unwrap().unwrap());
        }
        threads.push(found);
    }
    assert_eq!(threads.first(), threads.get(1));
    assert_eq!(threads.first(), threads.get(2));
    assert_eq!(threads.first().unwrap().len(), 3);
}

#[test]
fn a_thread_is_new_once() {
    let store = Memory::new();
    let (quick, key) = (store.at_once().unwrap(), thread("t"));
    let (first, _) = quick.claim_new(&key).unwrap().unwrap();
    assert!(quick.claim_new(&key).unwrap().is_none());
    let (second, _) = quick.claim(&key).unwrap();
    assert!(second > first);
}

#[tokio::test]
async fn a_line_is_fenced_by_the_next_claim_however_that_was_made() {
    let store = Memory::new();
    let (quick, key) = (store.at_once().unwrap(), thread("t"));
    let (old, line) = quick.claim(&key).unwrap();
    let new = store.claim(&key).await.unwrap();
    let refused = line.commit(&key, old, None, message());
    assert!(matches!(refused, Err(CheckpointError::Fenced { .. })));
    assert_eq!(line.commit(&key, new, None, message()).unwrap(), None);
    assert_eq!(store.outbox("t", 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_line_of_a_deleted_thread_writes_nothing_also_if_the_thread_was_made_anew() {
    let store = Memory::new();
    let (quick, key) = (store.at_once().unwrap(), thread("t"));
    let (epoch, line) = quick.claim(&key).unwrap();
    store.delete(&key).await.unwrap();
    for epoch in [epoch, Epoch(0), quick.claim(&key).unwrap().0] {
        let refused = line.commit(&key, epoch, None, message());
        assert!(matches!(refused, Err(CheckpointError::Fenced { .. })), "{epoch:?}");
    }
    assert!(store.outbox("t", 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_run_whose_thread_is_taken_over_or_deleted_meanwhile_stops() {
    for deleted in [false, true] {
        let store = Arc::new(Memory::new());
        let mut g = Graph::<Count>::builder("count");
        let other = Arc::clone(&store);
        let first = g.node("first", move |_: Arc<Count>| {
            let other = Arc::clone(&other);
            async move {
                if deleted {
                    other.delete(&thread("t")).await?;
                } else {
                    other.claim(&thread("t")).await?;
                }
                Ok(Count::update().n(1_u64))
            }
        });
        g.edge(START, first).edge(first, END);
        let graph = g
            .build()
            .unwrap()
            .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
        let error = graph.run(&thread("t"), CountInput::new()).await.unwrap_err();
        assert!(
            matches!(error, RunError::Checkpoint(CheckpointError::Fenced { .. })),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_refused_run_leaves_no_thread_behind_and_takes_none() {
    let store = Arc::new(Memory::new());
    let graph = graph().shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    let error = graph.resume(&thread("t")).await.unwrap_err();
    assert!(matches!(error, RunError::UnknownThread { .. }), "{error}");
    assert!(store.threads(&thread("t").tenant, None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_saved_at_once_is_there_and_follows_what_was_there() {
    let store = Arc::new(Memory::new());
    let graph = graph().shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    for round in 1..=3 {
        let run = graph.run(&thread("t"), CountInput::new()).on_busy(OnBusy::Wait);
        assert_eq!(run.await.unwrap().done().unwrap().n, 2 * round);
        let head = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
        assert_eq!(head.state.n, 2 * round);
    }
    let listed = store
        .list(&thread("t"), stepgraph::checkpoint::Page::default())
        .await
        .unwrap();
    assert_eq!(listed.len(), 9);
    assert!(
        listed
            .iter()
            .zip(listed.iter().skip(1))
            .all(|(new, old)| new.parent == Some(old.seq))
    );
}

/// Counts the ids that were drawn.
#[derive(Debug, Clone, Default)]
struct Drawn(Arc<AtomicU64>);

impl Clock for Drawn {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn id(&self) -> uuid::Uuid {
        uuid::Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::SeqCst)) + 1)
    }
}

#[tokio::test]
async fn a_run_draws_one_id_once_somebody_asks_for_it_or_it_is_kept() {
    for (asks, kept, drawn) in [(false, false, 0), (true, false, 1), (false, true, 1), (true, true, 1)] {
        let mut g = Graph::<Count>::builder("count");
        let node = g.node("node", move |_: Arc<Count>, ctx: Context<()>| {
            ready(Ok(Count::update().n(u64::from(!asks || ctx.run_id() == ctx.run_id()))))
        });
        g.edge(START, node).edge(node, END);
        let clock = Drawn::default();
        let mut graph = g.build().unwrap().clock(clock.clone());
        if kept {
            graph = graph.checkpointer(Memory::new());
        }
        let state = graph
            .run(&thread("t"), CountInput::new())
            .await
            .unwrap()
            .done()
            .unwrap();
        assert_eq!(
            (state.n, clock.0.load(Ordering::SeqCst)),
            (1, drawn),
            "asks: {asks}, kept: {kept}"
        );
    }
}
