//! Runs that are stopped from outside: cancelled, out of time, unheard, dropped; and what is kept of them.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Cancel, Context, END, Effect, FromState, Graph, Memory, NodeError, Outcome, ReaderGone, Route, RunError,
    START, State, Sum, checkpoint::At, events, to,
};
use support::{store::Watched, threads::thread};
use tokio::{sync::Notify, time::Instant};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = u64)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    sum: u64,
}

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Stop,
}

fn input() -> WorkInput {
    WorkInput::new()
}

fn logged(line: &str) -> WorkUpdate {
    Work::update().log([line.to_owned()])
}

/// Counts that survive the closures of a graph.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A graph of one node.
fn single<M, N>(node: N) -> Graph<Work>
where
    N: stepgraph::IntoNode<Work, M>,
    N::Input: FromState<Work>,
    N::Output: Into<WorkUpdate>,
{
    let mut g = Graph::<Work>::builder("single");
    let node = g.node("only", node);
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

/// A node that ends at once, and counts.
fn quick() -> (Graph<Work>, Count) {
    let count = Count::default();
    let counted = count.clone();
    let node = move |_: Arc<Work>| {
        counted.up();
        ready(Ok(logged("ok")))
    };
    (single(node), count)
}

/// Runs until `started` says so, then cancels.
async fn cancel_when_started(graph: &Graph<Work>, started: &Notify) -> Outcome<Work> {
    let cancel = Cancel::new();
    let run = tokio::spawn(graph.run(&thread("t"), input()).cancel(&cancel).into_future());
    started.notified().await;
    cancel.cancel();
    run.await.unwrap().unwrap()
}

/// `waits` says that it has begun and never ends, unless it is entered again; `done` ends at once.
fn waiting_pair() -> (Graph<Work>, Arc<Notify>, Count) {
    let (started, done) = (Arc::new(Notify::new()), Count::default());
    let mut g = Graph::<Work>::builder("waiting");
    let (entries, notify, count) = (Count::default(), Arc::clone(&started), done.clone());
    let waits = g.node("waits", move |_: Arc<Work>| {
        let (entry, started) = (entries.up(), Arc::clone(&notify));
        async move {
            if entry == 1 {
                started.notify_one();
                pending::<()>().await;
            }
            Ok(logged("waits"))
        }
    });
    let quick = g.node("quick", move |_: Arc<Work>| {
        count.up();
        ready(Ok(logged("quick")))
    });
    g.edge(START, waits)
        .edge(waits, END)
        .edge(START, quick)
        .edge(quick, END);
    (g.build().unwrap(), started, done)
}

#[tokio::test]
async fn a_cancelled_node_is_dropped_and_the_thread_goes_on_later() {
    let (started, entries) = (Arc::new(Notify::new()), Count::default());
    let (notify, count) = (Arc::clone(&started), entries.clone());
    let node = move |_: Arc<Work>| {
        let (entry, started) = (count.up(), Arc::clone(&notify));
        async move {
            if entry == 1 {
                started.notify_one();
                pending::<()>().await;
            }
            Ok(logged("ok"))
        }
    };
    let graph = single(node).checkpointer(Watched::default());
    assert_eq!(cancel_when_started(&graph, &started).await, Outcome::Cancelled);
    assert!(
        graph.unfinished(10).await.unwrap().is_empty(),
        "a cancelled run is nobody's to pick up"
    );
    assert_eq!(graph.resume(&thread("t")).await.unwrap().done().unwrap().log, ["ok"]);
}

#[tokio::test]
async fn a_node_that_leaves_early_because_it_was_cancelled_is_no_failure() {
    let started = Arc::new(Notify::new());
    let notify = Arc::clone(&started);
    let node = move |_: Arc<Work>, ctx: Context<u64>| {
        let started = Arc::clone(&notify);
        async move {
            started.notify_one();
            ctx.cancelled().await;
            Err::<WorkUpdate, _>(NodeError::terminal("left early"))
        }
    };
    let graph = single(node);
    assert_eq!(cancel_when_started(&graph, &started).await, Outcome::Cancelled);
}

#[tokio::test]
async fn cancelling_keeps_what_siblings_have_finished() {
    let (graph, started, done) = waiting_pair();
    let graph = graph.checkpointer(Watched::default());
    assert_eq!(cancel_when_started(&graph, &started).await, Outcome::Cancelled);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log, done.get()),
        (vec!["quick".to_owned(), "waits".to_owned()], 1)
    );
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_begins_runs_no_node() {
    let (graph, count) = quick();
    let cancel = Cancel::new();
    cancel.cancel();
    let outcome = graph.run(&thread("t"), input()).cancel(&cancel).await.unwrap();
    assert_eq!((outcome, count.get()), (Outcome::Cancelled, 0));
}

#[tokio::test]
async fn nodes_that_never_wait_can_be_cancelled_between_steps() {
    let cancel = Cancel::new();
    let (handle, count) = (cancel.clone(), Count::default());
    let counted = count.clone();
    let mut g = Graph::<Work>::builder("busy");
    let node = g.node("node", move |_: Arc<Work>| {
        if counted.up() == 5 {
            handle.cancel();
        }
        ready(Ok(Work::update().sum(1_u64)))
    });
    g.edge(START, node);
    g.branch(
        node,
        |work: &Work| {
            if work.sum == u64::MAX {
                Round::Stop
            } else {
                Round::Again
            }
        },
        |round| match round {
            Round::Again => to(node),
            Round::Stop => to(END),
        },
    );
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let outcome = graph
        .run(&thread("t"), input())
        .cancel(&cancel)
        .step_limit(1000)
        .await
        .unwrap();
    assert_eq!((outcome, count.get()), (Outcome::Cancelled, 5));
    assert_eq!(graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state.sum, 5);
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_ends_a_run_and_resume_goes_on() {
    let (graph, _started, done) = waiting_pair();
    let graph = graph.checkpointer(Watched::default());
    let limit = Duration::from_secs(7);
    let error = graph.run(&thread("t"), input()).time_limit(limit).await.unwrap_err();
    assert!(
        matches!(error, RunError::TimeLimit { limit: said, .. } if said == limit),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "no end of thread acme/t within 7s: raise `time_limit`; resume goes on"
    );
    assert!(graph.resume(&thread("t")).await.unwrap().done().is_some());
    assert_eq!(done.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_holds_for_nodes_that_never_wait() {
    let mut g = Graph::<Work>::builder("busy");
    let node = g.node("node", |_: Arc<Work>| async {
        tokio::time::advance(Duration::from_secs(1)).await;
        Ok(Work::update().sum(1_u64))
    });
    g.edge(START, node);
    g.branch(
        node,
        |work: &Work| {
            if work.sum == u64::MAX {
                Round::Stop
            } else {
                Round::Again
            }
        },
        |round| match round {
            Round::Again => to(node),
            Round::Stop => to(END),
        },
    );
    let graph = g.build().unwrap();
    let run = graph
        .run(&thread("t"), input())
        .time_limit(Duration::from_secs(20))
        .step_limit(1000);
    let error = run.await.unwrap_err();
    assert!(matches!(error, RunError::TimeLimit { .. }), "{error}");
}

#[tokio::test]
async fn a_reader_that_leaves_cancels_the_run_only_if_told_so() {
    for (gone, cancelled) in [(ReaderGone::Cancel, true), (ReaderGone::Finish, false)] {
        let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (notify, wait) = (Arc::clone(&started), Arc::clone(&go_on));
        let node = move |_: Arc<Work>, ctx: Context<u64>| {
            let (started, go_on) = (Arc::clone(&notify), Arc::clone(&wait));
            async move {
                started.notify_one();
                go_on.notified().await;
                ctx.emit(1).await;
                Ok(logged("ok"))
            }
        };
        let graph = single(node);
        let (sender, reader) = events(1, gone);
        drop_after_start(graph, sender, reader, &started, &go_on, cancelled).await;
    }
}

async fn drop_after_start(
    graph: Graph<Work>,
    sender: stepgraph::EventSender<Work>,
    mut reader: stepgraph::EventReader<Work>,
    started: &Notify,
    go_on: &Notify,
    cancelled: bool,
) {
    let run = tokio::spawn(graph.run(&thread("t"), input()).events(sender).into_future());
    for _ in 0..2 {
        assert!(reader.next().await.is_some());
    }
    started.notified().await;
    drop(reader);
    if !cancelled {
        go_on.notify_one();
    }
    let outcome = run.await.unwrap().unwrap();
    assert_eq!(outcome == Outcome::Cancelled, cancelled, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_its_reader_can_be_cancelled_and_keeps_its_time_limit() {
    for timed in [false, true] {
        let (graph, _count) = quick();
        let (sender, _never_read) = events(1, ReaderGone::Finish);
        let cancel = Cancel::new();
        let mut run = graph.run(&thread("t"), input()).events(sender).cancel(&cancel);
        if timed {
            run = run.time_limit(Duration::from_secs(5));
        }
        let run = tokio::spawn(run.into_future());
        tokio::task::yield_now().await;
        if timed {
            assert!(matches!(run.await.unwrap(), Err(RunError::TimeLimit { .. })));
        } else {
            cancel.cancel();
            assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
        }
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_goes_on_where_it_was() {
    let (graph, started, done) = waiting_pair();
    let graph = graph.checkpointer(Watched::default());
    let run = graph.run(&thread("t"), input()).into_future();
    tokio::select! {
        outcome = run => panic!("{outcome:?}"),
        () = async { started.notified().await; while done.get() == 0 { tokio::task::yield_now().await; } } => {}
    }
    assert_eq!(graph.unfinished(10).await.unwrap(), [thread("t")]);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["quick", "waits"]);
}

#[tokio::test(start_paused = true)]
async fn cancelling_waits_for_an_effect_under_way_and_keeps_its_result() {
    let (started, finish, effects) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Count::default());
    let (notify, wait, count) = (Arc::clone(&started), Arc::clone(&finish), effects.clone());
    let node = move |_: Arc<Work>, ctx: Context<u64>| {
        let (started, finish, count) = (Arc::clone(&notify), Arc::clone(&wait), count.clone());
        async move {
            let pay = || {
                let (started, finish, count) = (Arc::clone(&started), Arc::clone(&finish), count.clone());
                async move {
                    count.up();
                    started.notify_one();
                    finish.notified().await;
                    Ok(7_u64)
                }
            };
            let paid = ctx.once("pay", Effect::other(pay)).await?;
            if ctx.is_cancelled() {
                pending::<()>().await;
            }
            Ok(Work::update().sum(paid))
        }
    };
    let graph = single(node).checkpointer(Watched::default());
    let cancel = Cancel::new();
    let run = tokio::spawn(graph.run(&thread("t"), input()).cancel(&cancel).into_future());
    started.notified().await;
    cancel.cancel();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!run.is_finished(), "the effect is still under way");
    finish.notify_one();
    assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!((state.sum, effects.get()), (7, 1));
}

#[tokio::test(start_paused = true)]
async fn cancelling_does_not_wait_for_an_effect_for_ever() {
    let started = Arc::new(Notify::new());
    let notify = Arc::clone(&started);
    let node = move |_: Arc<Work>, ctx: Context<u64>| {
        let started = Arc::clone(&notify);
        async move {
            let hang = || {
                started.notify_one();
                pending::<Result<u64, NodeError>>()
            };
            ctx.once("hang", Effect::other(hang)).await?;
            Ok(logged("never"))
        }
    };
    let graph = single(node).checkpointer(Watched::default());
    let begun = Instant::now();
    assert_eq!(cancel_when_started(&graph, &started).await, Outcome::Cancelled);
    assert!(begun.elapsed() >= Duration::from_secs(10) && begun.elapsed() < Duration::from_secs(11));
    let Outcome::Asked(questions) = graph.resume(&thread("t")).await.unwrap() else {
        panic!("the effect is in doubt");
    };
    assert_eq!(questions[0].payload, serde_json::json!({"effect": "hang"}));
}
