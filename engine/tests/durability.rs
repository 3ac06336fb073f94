//! When a run's steps are durable, in each mode, and what a crash leaves of them.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod gated;
    pub(crate) mod threads;
}

#[path = "parts/durability_effects.rs"]
mod effects;

use std::{
    future::IntoFuture,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Context, Durability, END, EventKind, FromState, Graph, NodeError, Outcome, ReaderGone, RunError,
    START, State,
    checkpoint::{At, RecordKind, RunStatus},
    events,
};
use support::{gated::Gated, threads::thread};
use tokio::sync::Notify;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    lines: Vec<String>,
}

impl FromState<Log> for LogInput {
    fn from_state(_: &Arc<Log>) -> Self {
        Self {}
    }
}

impl From<Arc<Log>> for LogUpdate {
    fn from(inner: Arc<Log>) -> Self {
        Log::update().lines(inner.lines.clone())
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

/// Who ran, in the order in which they began.
#[derive(Debug, Default, Clone)]
struct Ran(Arc<Mutex<Vec<String>>>, Arc<Notify>);

impl Ran {
    fn note(&self, name: &str) {
        self.0.lock().unwrap().push(name.to_owned());
        self.1.notify_one();
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until `name` has begun.
    async fn began(&self, name: &str) {
        while !self.names().iter().any(|ran| ran == name) {
            self.1.notified().await;
        }
    }
}

fn line(text: impl Into<String>) -> LogUpdate {
    Log::update().lines([text.into()])
}

/// A chain of nodes that each write their name.
fn chain(names: &[&'static str], ran: &Ran) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("chain");
    let mut before = None;
    for &name in names {
        let ran = ran.clone();
        let node = g.node(name, move |_: Arc<Log>| {
            let ran = ran.clone();
            async move {
                ran.note(name);
                Ok(line(name))
            }
        });
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g.build().unwrap()
}

/// Lets everything run that can.
async fn quiet() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn lines(outcome: Outcome<Log>) -> Vec<String> {
    match outcome {
        Outcome::Done(log) => log.lines,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn async_saves_a_step_while_the_next_one_runs_and_is_never_further_ahead() {
    let (store, ran) = (Gated::new(), Ran::default());
    let graph = chain(&["a", "b", "c"], &ran).checkpointer(store.clone());
    store.allow(0);
    let run = tokio::spawn(
        graph
            .run(&thread("t"), LogInput {})
            .durability(Durability::Async)
            .into_future(),
    );
    store.tried(1).await;
    quiet().await;
    assert_eq!(ran.names(), [""; 0], "the admission is durable before any node runs");
    store.allow(1);
    ran.began("b").await;
    quiet().await;
    assert_eq!(ran.names(), ["a", "b"]);
    assert_eq!(store.steps(), [0], "the save of the first step waits at the gate");
    store.open();
    assert_eq!(lines(run.await.unwrap().unwrap()), ["a", "b", "c"]);
    assert_eq!(store.steps(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_save_that_fails_stops_an_async_run_before_the_step_after_the_next() {
    let (store, ran) = (Gated::new(), Ran::default());
    let graph = chain(&["a", "b", "c", "d"], &ran).checkpointer(store.clone());
    store.fail_at(2);
    let error = graph
        .run(&thread("t"), LogInput {})
        .durability(Durability::Async)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "checkpoint::unavailable");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert_eq!(ran.names(), ["a", "b"]);
    assert_eq!(store.steps(), [0]);
    assert_eq!(graph.unfinished(9).await.unwrap(), [thread("t")]);
    let outcome = graph.resume(&thread("t")).durability(Durability::Async).await.unwrap();
    assert_eq!(lines(outcome), ["a", "b", "c", "d"]);
    assert_eq!(ran.names()[2..], ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_failed_save_is_the_error_even_where_the_run_would_end_otherwise() {
    // The last step but one is not saved; the run would be done, stop at its limit, or fail by its node.
    for (limit, fails) in [(9, false), (2, false), (9, true)] {
        let (store, ran) = (Gated::new(), Ran::default());
        let mut g = Graph::<Log>::builder("three");
        let a = g.node("a", |_: Arc<Log>| async { Ok(line("a")) });
        let noted = ran.clone();
        let b = g.node("b", move |_: Arc<Log>| {
            noted.note("b");
            async move {
                if fails {
                    Err(NodeError::terminal("no"))
                } else {
                    Ok(line("b"))
                }
            }
        });
        let c = g.node("c", |_: Arc<Log>| async { Ok(line("c")) });
        g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
        let graph = g.build().unwrap().checkpointer(store.clone());
        store.fail_at(2);
        let run = graph.run(&thread("t"), LogInput {}).step_limit(limit);
        let error = run.durability(Durability::Async).await.unwrap_err();
        assert_eq!(
            error.code(),
            "checkpoint::unavailable",
            "limit {limit}, fails {fails}: {error}"
        );
    }
}

#[tokio::test]
async fn async_tells_saved_when_it_is_and_in_order() {
    let (store, ran) = (Gated::new(), Ran::default());
    let graph = chain(&["a", "b", "c"], &ran).checkpointer(store.clone());
    let (sender, mut reader) = events(64, ReaderGone::Finish);
    let run = graph
        .run(&thread("t"), LogInput {})
        .durability(Durability::Async)
        .events(sender);
    let run = tokio::spawn(run.into_future());
    let mut saved = Vec::new();
    while let Some(event) = reader.next().await {
        if let EventKind::Saved { step, checkpoint, .. } = event.kind {
            let (seq, id) = checkpoint.unwrap();
            assert!(
                store.steps().contains(&step),
                "step {step} was told before it was stored"
            );
            saved.push((step, seq.0));
            let found = graph.state(&thread("t"), At::Id(id)).await.unwrap().unwrap();
            assert_eq!(found.entry.seq, seq);
        }
    }
    assert_eq!(saved, [(0, 1), (1, 2), (2, 3), (3, 4)]);
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_an_async_run_cuts_off_its_save() {
    let (store, ran) = (Gated::new(), Ran::default());
    let gone_on = Arc::new(Notify::new());
    let mut g = Graph::<Log>::builder("waits");
    let a = g.node("a", |_: Arc<Log>| async { Ok(line("a")) });
    let (noted, held) = (ran.clone(), Arc::clone(&gone_on));
    let b = g.node("b", move |_: Arc<Log>| {
        let (noted, held) = (noted.clone(), Arc::clone(&held));
        async move {
            noted.note("b");
            held.notified().await;
            Ok(line("b"))
        }
    });
    g.edge(START, a).edge(a, b).edge(b, END);
    let graph = g.build().unwrap().checkpointer(store.clone());
    store.allow(1);
    let run = tokio::spawn(
        graph
            .run(&thread("t"), LogInput {})
            .durability(Durability::Async)
            .into_future(),
    );
    ran.began("b").await;
    store.tried(2).await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    store.open();
    quiet().await;
    assert_eq!(store.steps(), [0]);
    gone_on.notify_one();
    assert_eq!(lines(graph.resume(&thread("t")).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn exit_writes_the_admission_and_then_one_checkpoint() {
    let (store, ran) = (Gated::new(), Ran::default());
    let graph = chain(&["a", "b", "c", "d"], &ran).checkpointer(store.clone());
    let outcome = graph
        .run(&thread("t"), LogInput {})
        .durability(Durability::Exit)
        .await
        .unwrap();
    assert_eq!(lines(outcome), ["a", "b", "c", "d"]);
    assert_eq!(store.log().len(), 2, "{:?}", store.log());
    assert_eq!(store.steps(), [0, 4]);
    assert_eq!(store.log()[1].status, Some(RunStatus::Done));
    // The second run's only step is laid over the first's as a change, not as a copy of everything.
    let outcome = graph
        .run(&thread("t"), LogInput {})
        .durability(Durability::Exit)
        .await
        .unwrap();
    let twice = ["a", "b", "c", "d", "a", "b", "c", "d"];
    assert_eq!(lines(outcome), twice);
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(kept.state.lines, twice);
}

#[tokio::test]
async fn an_exit_run_that_is_dropped_goes_on_from_its_admission() {
    let (store, ran) = (Gated::new(), Ran::default());
    let mut g = Graph::<Log>::builder("waits");
    let noted = ran.clone();
    let a = g.node("a", move |_: Arc<Log>| {
        noted.note("a");
        async { Ok(line("a")) }
    });
    let (noted, first) = (ran.clone(), Arc::new(AtomicBool::new(true)));
    let b = g.node("b", move |_: Arc<Log>| {
        noted.note("b");
        let first = first.swap(false, Ordering::SeqCst);
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(line("b"))
        }
    });
    g.edge(START, a).edge(a, b).edge(b, END);
    let graph = g.build().unwrap().checkpointer(store.clone());
    let run = tokio::spawn(
        graph
            .run(&thread("t"), LogInput {})
            .durability(Durability::Exit)
            .into_future(),
    );
    ran.began("b").await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(store.steps(), [0]);
    assert_eq!(graph.unfinished(9).await.unwrap(), [thread("t")]);
    let outcome = graph.resume(&thread("t")).durability(Durability::Exit).await.unwrap();
    assert_eq!(lines(outcome), ["a", "b"]);
    assert_eq!(ran.names(), ["a", "b", "a", "b"]);
}

#[tokio::test]
async fn an_exit_run_that_fails_asks_or_stops_keeps_its_newest_step() {
    let (store, ran) = (Gated::new(), Ran::default());
    let mut g = Graph::<Log>::builder("trouble");
    let noted = ran.clone();
    let a = g.node("a", move |_: Arc<Log>| {
        noted.note("a");
        async { Ok(line("a")) }
    });
    let first = Arc::new(AtomicBool::new(true));
    let b = g.node("b", move |_: Arc<Log>| {
        let first = first.swap(false, Ordering::SeqCst);
        async move {
            if first {
                Err(NodeError::terminal("not yet"))
            } else {
                Ok(line("b"))
            }
        }
    });
    let c = g.node("c", |_: Arc<Log>, ctx: Context<()>| async move {
        Ok(line(format!("c {}", ctx.ask(Sure)?)))
    });
    g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
    let graph = g.build().unwrap().checkpointer(store.clone());
    let exit = |run: stepgraph::Run<Log>| run.durability(Durability::Exit).into_future();
    let error = exit(graph.run(&thread("t"), LogInput {})).await.unwrap_err();
    assert_eq!(error.code(), "run::node");
    assert_eq!(store.steps(), [0, 1]);
    let RunError::Node { checkpoint, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(checkpoint.map(|seq| seq.0), Some(2));
    let asked = exit(graph.resume(&thread("t"))).await.unwrap();
    assert!(matches!(asked, Outcome::Asked(_)), "{asked:?}");
    assert_eq!(store.steps(), [0, 1, 2]);
    assert_eq!(
        store.log().last().unwrap().records,
        [("c".to_owned(), RecordKind::Question)]
    );
    let stopped = exit(graph.resume(&thread("t")).step_limit(0)).await.unwrap_err();
    assert_eq!(stopped.code(), "run::step_limit");
    let done = exit(graph.resume(&thread("t")).answer::<Sure>(&true)).await.unwrap();
    assert_eq!(lines(done), ["a", "b", "c true"]);
    assert_eq!(ran.names(), ["a"], "a finished step does not run again");
}
