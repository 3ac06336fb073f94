//! Runs that are asked to stop at the end of their step.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::IntoFuture,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Cancel, Context, Drain, Durability, END, FromState, Graph, Memory, NodeError, Outcome, START, State,
    checkpoint::{At, RunStatus},
};
use support::threads::thread;
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

/// Who has begun, in order.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<&'static str>>>);

impl Ran {
    fn names(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

/// A chain of nodes; the one named `by` asks for the drain while it runs.
fn chain(name: &'static str, nodes: &[&'static str], ran: &Ran, by: &'static str, drain: &Drain) -> Graph<Log> {
    let mut g = Graph::<Log>::builder(name);
    let mut before = None;
    for &name in nodes {
        let (ran, drain) = (ran.clone(), drain.clone());
        let node = g.node(name, move |_: Arc<Log>, ctx: Context<()>| {
            let (ran, drain) = (ran.clone(), drain.clone());
            async move {
                ran.0.lock().unwrap().push(name);
                if name == by {
                    assert!(!ctx.is_draining());
                    drain.request();
                    assert!(ctx.is_draining());
                }
                tokio::task::yield_now().await;
                Ok(Log::update().lines([name.to_owned()]))
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

async fn newest_step(graph: &Graph<Log>) -> i64 {
    graph.state(&thread("t"), At::Head).await.unwrap().unwrap().entry.step
}

fn lines(outcome: Outcome<Log>) -> Vec<String> {
    match outcome {
        Outcome::Done(log) => log.lines,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_drained_run_ends_its_step_and_goes_on_later_in_every_mode() {
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        let (store, ran, drain) = (Arc::new(Memory::new()), Ran::default(), Drain::new());
        let graph = chain("chain", &["a", "b", "c"], &ran, "b", &drain).shared_checkpointer(store.clone());
        let run = graph.run(&thread("t"), LogInput {}).durability(durability);
        assert_eq!(run.drain(&drain).await.unwrap(), Outcome::Drained, "{durability:?}");
        assert_eq!(ran.names(), ["a", "b"]);
        assert_eq!(newest_step(&graph).await, 2, "{durability:?}: the step is saved");
        assert_eq!(graph.unfinished(9).await.unwrap(), [thread("t")], "{durability:?}");
        // The next process goes on, unless it is drained as well.
        let again = graph
            .resume(&thread("t"))
            .drain(&drain)
            .durability(durability)
            .await
            .unwrap();
        assert_eq!(again, Outcome::Drained, "{durability:?}");
        let outcome = graph.resume(&thread("t")).durability(durability).await.unwrap();
        assert_eq!(lines(outcome), ["a", "b", "c"], "{durability:?}");
        assert_eq!(ran.names(), ["a", "b", "c"]);
        assert!(graph.unfinished(9).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_run_that_is_drained_in_its_last_step_is_done() {
    let (ran, drain) = (Ran::default(), Drain::new());
    let graph = chain("chain", &["a", "b"], &ran, "b", &drain).checkpointer(Memory::new());
    let outcome = graph.run(&thread("t"), LogInput {}).drain(&drain).await.unwrap();
    assert_eq!(lines(outcome), ["a", "b"]);
}

#[tokio::test]
async fn a_run_that_begins_under_a_drain_is_admitted_and_no_more() {
    let (store, ran, drain) = (Arc::new(Memory::new()), Ran::default(), Drain::new());
    drain.request();
    assert!(drain.clone().is_requested());
    let graph = chain("chain", &["a"], &ran, "nobody", &drain).shared_checkpointer(store.clone());
    let outcome = graph.run(&thread("t"), LogInput {}).drain(&drain).await.unwrap();
    assert_eq!(outcome, Outcome::Drained);
    assert_eq!((ran.names().len(), newest_step(&graph).await), (0, 0));
    assert_eq!(lines(graph.resume(&thread("t")).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_breakpoint_comes_first_and_the_step_limit_last() {
    let (ran, drain) = (Ran::default(), Drain::new());
    let graph = chain("chain", &["a", "b", "c"], &ran, "a", &drain).checkpointer(Memory::new());
    let run = graph.run(&thread("t"), LogInput {}).drain(&drain).stop_before(["b"]);
    assert!(matches!(run.await.unwrap(), Outcome::Breakpoint(_)));
    let graph = chain("chain", &["a", "b"], &ran, "nobody", &drain).checkpointer(Memory::new());
    let run = graph.run(&thread("u"), LogInput {}).drain(&Drain::new()).step_limit(1);
    assert_eq!(run.await.unwrap_err().code(), "run::step_limit");
    let run = graph.run(&thread("v"), LogInput {}).drain(&drain).step_limit(0);
    assert_eq!(run.await.unwrap(), Outcome::Drained);
}

#[tokio::test]
async fn a_graph_inside_stops_at_its_own_step_and_runs_nothing_twice() {
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        let (store, ran, drain) = (Arc::new(Memory::new()), Ran::default(), Drain::new());
        let deepest = chain("deepest", &["x", "y", "z"], &ran, "y", &drain);
        let mut g = Graph::<Log>::builder("middle");
        let host = g.node("host", deepest.as_node::<LogInput, Arc<Log>>());
        g.edge(START, host).edge(host, END);
        let middle = g.build().unwrap();
        let mut g = Graph::<Log>::builder("outer");
        let host = g.node("host", middle.as_node::<LogInput, Arc<Log>>());
        let noted = ran.clone();
        let beside = g.node("beside", move |_: Arc<Log>| {
            noted.0.lock().unwrap().push("beside");
            async { Ok(Log::update().lines(["beside".to_owned()])) }
        });
        let noted = ran.clone();
        let after = g.node("after", move |_: Arc<Log>| {
            noted.0.lock().unwrap().push("after");
            async { Ok(Log::update().lines(["after".to_owned()])) }
        });
        g.edge(START, host)
            .edge(START, beside)
            .join([host, beside], after)
            .edge(after, END);
        let graph = g.build().unwrap().shared_checkpointer(store.clone());
        let run = graph.run(&thread("t"), LogInput {}).durability(durability);
        assert_eq!(run.drain(&drain).await.unwrap(), Outcome::Drained, "{durability:?}");
        let mut first = ran.names();
        first.sort_unstable();
        assert_eq!(first, ["beside", "x", "y"], "{durability:?}");
        assert_eq!(graph.unfinished(9).await.unwrap(), [thread("t")], "{durability:?}");
        let outcome = graph.resume(&thread("t")).durability(durability).await.unwrap();
        assert_eq!(lines(outcome), ["beside", "x", "y", "z", "after"], "{durability:?}");
        assert_eq!(ran.names()[3..], ["z", "after"], "{durability:?}");
    }
}

#[tokio::test]
async fn a_question_beside_a_drained_graph_is_asked() {
    let (ran, drain) = (Ran::default(), Drain::new());
    let inner = chain("inner", &["x", "y"], &ran, "x", &drain);
    let mut g = Graph::<Log>::builder("outer");
    let host = g.node("host", inner.as_node::<LogInput, Arc<Log>>());
    let asks = g.node("asks", |_: Arc<Log>, ctx: Context<()>| async move {
        let sure = ctx.ask(Sure)?;
        Ok(Log::update().lines([sure.to_string()]))
    });
    g.edge(START, host).edge(START, asks).edge(host, END).edge(asks, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let outcome = graph.run(&thread("t"), LogInput {}).drain(&drain).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    let outcome = graph.resume(&thread("t")).answer::<Sure>(&true).await.unwrap();
    assert_eq!(lines(outcome), ["true", "x", "y"]);
    assert_eq!(ran.names(), ["x", "y"]);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_in_a_cancellation() {
    let (store, drain, cancel, begun) = (
        Arc::new(Memory::new()),
        Drain::new(),
        Cancel::new(),
        Arc::new(Notify::new()),
    );
    let mut g = Graph::<Log>::builder("slow");
    let told = Arc::clone(&begun);
    let slow = g.node("slow", move |log: Arc<Log>| {
        let told = Arc::clone(&told);
        async move {
            told.notify_one();
            if log.lines.is_empty() {
                std::future::pending::<()>().await;
            }
            Ok::<_, NodeError>(Log::update().lines(["slow".to_owned()]))
        }
    });
    g.edge(START, slow).edge(slow, END);
    let graph = g.build().unwrap().shared_checkpointer(store.clone());
    let run = graph.run(&thread("t"), LogInput {}).drain(&drain).cancel(&cancel);
    let run = tokio::spawn(run.into_future());
    begun.notified().await;
    let many: Vec<_> = (0..8)
        .map(|_| {
            let drain = drain.clone();
            tokio::spawn(async move { drain.request() })
        })
        .collect();
    for one in many {
        one.await.unwrap();
    }
    assert!(!run.is_finished(), "a task that runs is not cut off by a drain");
    cancel.cancel();
    assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(kept.run.unwrap().status, RunStatus::Stopped);
}
