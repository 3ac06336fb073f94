//! A graph as a node of another: where its state, events, questions, failures and cancellations go.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, pending, ready},
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Append, Ask, Cancel, Context, END, Effect, EventKind, FromState, Graph, Memory, NodeError, Outcome,
    Policy, Question, ReaderGone, Retry, Route, RunError, START, State, Sum, checkpoint::At, events, to,
};
use support::{store::Watched, threads::thread};
use tokio::sync::Notify;

/// The state inside.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = u64)]
struct Inner {
    #[state(input)]
    text: String,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
}

/// The state outside.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = u64)]
struct Outer {
    #[state(input)]
    text: String,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
}

impl FromState<Outer> for InnerInput {
    fn from_state(outer: &Arc<Outer>) -> Self {
        Self {
            text: outer.text.clone(),
        }
    }
}

impl FromState<Outer> for OuterInput {
    fn from_state(outer: &Arc<Outer>) -> Self {
        Self {
            text: outer.text.clone(),
        }
    }
}

/// What the host takes out of the graph inside.
struct Log(Vec<String>);

impl FromState<Inner> for Log {
    fn from_state(inner: &Arc<Inner>) -> Self {
        Self(inner.log.clone())
    }
}

impl FromState<Outer> for Log {
    fn from_state(outer: &Arc<Outer>) -> Self {
        Self(outer.log.clone())
    }
}

impl From<Log> for OuterUpdate {
    fn from(Log(log): Log) -> Self {
        Outer::update().log(log)
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "review", answer = bool)]
struct Review;

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Enough,
}

type Count = Arc<AtomicUsize>;

fn up(count: &Count) -> usize {
    count.fetch_add(1, Ordering::SeqCst) + 1
}

fn got(count: &Count) -> usize {
    count.load(Ordering::SeqCst)
}

fn input() -> OuterInput {
    OuterInput {
        text: "text".to_owned(),
    }
}

fn line(text: impl Into<String>) -> InnerUpdate {
    Inner::update().log([text.into()])
}

/// `host` runs `inner` between `before` and `after`.
fn hosting(inner: Graph<Inner>, policy: Policy) -> Graph<Outer> {
    let mut g = Graph::<Outer>::builder("outer");
    let before = g.node("before", |_: Arc<Outer>| {
        ready(Ok(Outer::update().log(["before".to_owned()])))
    });
    let host = g.node("host", inner.as_node::<InnerInput, Log>());
    let after = g.node("after", |_: Arc<Outer>| {
        ready(Ok(Outer::update().log(["after".to_owned()])))
    });
    g.policy(host, policy);
    g.edge(START, before)
        .edge(before, host)
        .edge(host, after)
        .edge(after, END);
    g.build().unwrap()
}

/// The same one graph deeper.
fn nesting(middle: Graph<Outer>) -> Graph<Outer> {
    let mut g = Graph::<Outer>::builder("outermost");
    let deep = g.node("deep", middle.as_node::<OuterInput, Log>());
    g.edge(START, deep).edge(deep, END);
    g.build().unwrap()
}

/// `first`, then `second`; the closures say what they do.
fn two_steps<A, B>(first: A, second: B) -> Graph<Inner>
where
    A: Fn(Context<u64>) -> Result<InnerUpdate, NodeError> + Send + Sync + 'static,
    B: Fn(Context<u64>) -> Result<InnerUpdate, NodeError> + Send + Sync + 'static,
{
    let mut g = Graph::<Inner>::builder("inner");
    let first = g.node("first", move |_: Arc<Inner>, ctx: Context<u64>| ready(first(ctx)));
    let second = g.node("second", move |_: Arc<Inner>, ctx: Context<u64>| ready(second(ctx)));
    g.edge(START, first).edge(first, second).edge(second, END);
    g.build().unwrap()
}

fn asked(outcome: Outcome<Outer>) -> Vec<Question> {
    match outcome {
        Outcome::Asked(questions) => questions,
        other => panic!("{other:?}"),
    }
}

fn log_of(outcome: Outcome<Outer>) -> Vec<String> {
    outcome.done().unwrap().log
}

#[tokio::test]
async fn a_graph_is_a_node_with_and_without_a_store() {
    for kept in [false, true] {
        let inner = two_steps(|ctx| Ok(line(ctx.node())), |ctx| Ok(line(ctx.node())));
        let graph = nesting(hosting(inner, Policy::new()));
        let graph = if kept {
            graph.checkpointer(Watched::default())
        } else {
            graph
        };
        let outcome = graph.run(&thread("t"), input()).await.unwrap();
        assert_eq!(log_of(outcome), ["before", "first", "second", "after"]);
    }
}

#[tokio::test]
async fn what_inner_nodes_emit_leaves_with_the_path_of_its_hosts() {
    let emit = |ctx: Context<u64>| {
        assert!(ctx.try_emit(7));
        Ok(line(""))
    };
    let graph = nesting(hosting(two_steps(emit, emit), Policy::new()));
    let (sender, mut reader) = events(100, ReaderGone::Finish);
    graph.run(&thread("t"), input()).events(sender).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = reader.next().await {
        match event.kind {
            EventKind::Custom { node, event: emitted } => {
                told.push(format!("{}/{node} emits {emitted}", event.path.join("/")));
            }
            EventKind::Update { node, .. } => told.push(format!("{node} ends")),
            _ => {}
        }
    }
    assert_eq!(
        told,
        ["deep/host/first emits 7", "deep/host/second emits 7", "deep ends"]
    );
}

/// `first` counts, `second` asks.
fn counting_and_asking(first: &Count) -> Graph<Inner> {
    let first = Arc::clone(first);
    two_steps(
        move |_| {
            up(&first);
            Ok(line("first"))
        },
        |ctx| ctx.ask(Review).map(|good| line(format!("good: {good}"))),
    )
}

#[tokio::test]
async fn a_question_inside_is_the_hosts_and_finished_inner_nodes_are_not_run_again() {
    let first = Count::default();
    let shallow = hosting(counting_and_asking(&first), Policy::new());
    let deep = nesting(hosting(counting_and_asking(&first), Policy::new()));
    for (graph, node) in [(shallow, "host/second"), (deep, "deep/host/second")] {
        first.store(0, Ordering::SeqCst);
        let graph = graph.checkpointer(Watched::default());
        let open = asked(graph.run(&thread("t"), input()).await.unwrap());
        assert_eq!((open.len(), open[0].node.as_str(), got(&first)), (1, node, 1));
        assert_eq!(open[0].answer_schema["type"], "boolean");
        assert_eq!(
            graph.state(&thread("t"), At::Head).await.unwrap().unwrap().questions,
            open
        );
        let wrong = Answers::Many(vec![(open[0].id.clone(), json!("perhaps"))]);
        let again = asked(graph.resume(&thread("t")).answers(wrong).await.unwrap());
        assert!(again[0].problem.is_some() && again[0].id == open[0].id, "{again:?}");
        let outcome = graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap();
        assert_eq!(log_of(outcome), ["before", "first", "good: true", "after"]);
        assert_eq!(got(&first), 1);
    }
}

#[tokio::test]
async fn a_loop_inside_that_asks_in_every_round_gets_each_rounds_answer() {
    let mut g = Graph::<Inner>::builder("inner");
    let node = g.node("node", |_: Arc<Inner>, ctx: Context<u64>| {
        ready(ctx.ask(Review).map(|good| line(good.to_string()).rounds(1_u64)))
    });
    g.edge(START, node);
    g.branch(
        node,
        |inner: &Inner| if inner.rounds < 3 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(node),
            Round::Enough => to(END),
        },
    );
    let graph = nesting(hosting(g.build().unwrap(), Policy::new())).checkpointer(Memory::new());
    let mut outcome = graph.run(&thread("t"), input()).await.unwrap();
    for answer in [true, false, true] {
        assert_eq!(asked(outcome).len(), 1);
        outcome = graph.resume(&thread("t")).answer::<Review>(&answer).await.unwrap();
    }
    assert_eq!(log_of(outcome), ["before", "true", "false", "true", "after"]);
}

#[tokio::test]
async fn parallel_questions_inside_may_be_answered_one_by_one() {
    let mut g = Graph::<Inner>::builder("inner");
    for name in ["a", "b"] {
        let node = g.node(name, move |_: Arc<Inner>, ctx: Context<u64>| {
            ready(ctx.ask(Review).map(|good| line(format!("{name} {good}"))))
        });
        g.edge(START, node).edge(node, END);
    }
    let graph = hosting(g.build().unwrap(), Policy::new()).checkpointer(Memory::new());
    let open = asked(graph.run(&thread("t"), input()).await.unwrap());
    assert_eq!(open.len(), 2);
    let second = Answers::Many(vec![(open[1].id.clone(), json!(false))]);
    assert_eq!(
        asked(graph.resume(&thread("t")).answers(second).await.unwrap()),
        open[..1]
    );
    let outcome = graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap();
    assert_eq!(log_of(outcome), ["before", "a true", "b false", "after"]);
}

#[derive(Debug, thiserror::Error)]
#[error("broken inside")]
struct Broken;

#[tokio::test]
async fn a_failure_inside_names_the_host_and_resumes_at_the_inner_node() {
    let (first, broken) = (Count::default(), Arc::new(AtomicBool::new(true)));
    let (counted, flag) = (Arc::clone(&first), Arc::clone(&broken));
    let inner = two_steps(
        move |_| {
            up(&counted);
            Ok(line("first"))
        },
        move |_| {
            if flag.load(Ordering::SeqCst) {
                Err(NodeError::terminal(Broken))
            } else {
                Ok(line("second"))
            }
        },
    );
    let graph = nesting(hosting(inner, Policy::new())).checkpointer(Watched::default());
    let error = graph.run(&thread("t"), input()).await.unwrap_err();
    assert!(
        matches!(&error, RunError::Node { node, .. } if node == "deep"),
        "{error}"
    );
    assert!(error.node_error::<Broken>().is_some());
    assert!(error.to_string().contains("node `host` failed") && error.to_string().contains("node `second` failed"));
    broken.store(false, Ordering::SeqCst);
    let outcome = graph.resume(&thread("t")).await.unwrap();
    assert_eq!(log_of(outcome), ["before", "first", "second", "after"]);
    assert_eq!(got(&first), 1);
}

#[tokio::test(start_paused = true)]
async fn the_hosts_policy_retries_an_inner_error_that_is_worth_it_and_no_other() {
    for (terminal, entries) in [(false, 3), (true, 1)] {
        let count = Count::default();
        let counted = Arc::clone(&count);
        let inner = two_steps(
            |_| Ok(line("first")),
            move |_| match (up(&counted), terminal) {
                (3, _) => Ok(line("second")),
                (_, true) => Err(NodeError::terminal(Broken)),
                (_, false) => Err(NodeError::retryable(Broken)),
            },
        );
        let retry = Retry::attempts(NonZeroU32::new(3).unwrap());
        let graph = hosting(inner, Policy::new().retry(retry)).checkpointer(Memory::new());
        let outcome = graph.run(&thread("t"), input()).await;
        assert_eq!((outcome.is_err(), got(&count)), (terminal, entries));
    }
}

/// One inner node that says it has begun and then waits for ever, once.
fn waiting(started: &Arc<Notify>) -> Graph<Inner> {
    let (started, entries) = (Arc::clone(started), Count::default());
    let mut g = Graph::<Inner>::builder("inner");
    let quick = g.node("quick", |_: Arc<Inner>| ready(Ok(line("quick"))));
    let node = g.node("waits", move |_: Arc<Inner>| {
        let (started, entry) = (Arc::clone(&started), up(&entries));
        async move {
            if entry == 1 {
                started.notify_one();
                pending::<()>().await;
            }
            Ok(line("waits"))
        }
    });
    g.edge(START, node).edge(node, END).edge(START, quick).edge(quick, END);
    g.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_the_second_depth_at_once() {
    let started = Arc::new(Notify::new());
    let graph = nesting(hosting(waiting(&started), Policy::new())).checkpointer(Watched::default());
    let cancel = Cancel::new();
    let run = tokio::spawn(graph.run(&thread("t"), input()).cancel(&cancel).into_future());
    started.notified().await;
    let begun = tokio::time::Instant::now();
    cancel.cancel();
    assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
    assert!(begun.elapsed() < Duration::from_millis(100));
    let outcome = graph.resume(&thread("t")).await.unwrap();
    assert_eq!(log_of(outcome), ["before", "quick", "waits", "after"]);
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_inside_is_the_runs_own() {
    let graph = nesting(hosting(waiting(&Arc::new(Notify::new())), Policy::new())).checkpointer(Watched::default());
    let limit = Duration::from_secs(3);
    let error = graph.run(&thread("t"), input()).time_limit(limit).await.unwrap_err();
    assert!(
        matches!(error, RunError::TimeLimit { limit: said, .. } if said == limit),
        "{error}"
    );
    let outcome = graph.resume(&thread("t")).await.unwrap();
    assert_eq!(log_of(outcome), ["before", "quick", "waits", "after"]);
}

#[tokio::test]
async fn cancelling_waits_for_an_effect_under_way_inside() {
    let (started, finish, effects) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Count::default());
    let (notify, wait, count) = (Arc::clone(&started), Arc::clone(&finish), Arc::clone(&effects));
    let mut g = Graph::<Inner>::builder("inner");
    let node = g.node("pay", move |_: Arc<Inner>, ctx: Context<u64>| {
        let (started, finish, count) = (Arc::clone(&notify), Arc::clone(&wait), Arc::clone(&count));
        async move {
            let pay = || async {
                started.notify_one();
                finish.notified().await;
                Ok(up(&count))
            };
            let number = ctx.once("pay", Effect::other(pay)).await?;
            Ok(line(format!("paid {number}")))
        }
    });
    g.edge(START, node).edge(node, END);
    let graph = nesting(hosting(g.build().unwrap(), Policy::new())).checkpointer(Watched::default());
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
    let outcome = graph.resume(&thread("t")).await.unwrap();
    assert_eq!(log_of(outcome), ["before", "paid 1", "after"]);
    assert_eq!(got(&effects), 1);
}

/// A host in a loop of two rounds; notes what its inner node saw and drew.
fn looping(seen: &Arc<Mutex<Vec<(usize, uuid::Uuid)>>>) -> Graph<Outer> {
    let seen = Arc::clone(seen);
    let mut i = Graph::<Inner>::builder("inner");
    let node = i.node("node", move |inner: Arc<Inner>, ctx: Context<u64>| {
        seen.lock().unwrap().push((inner.log.len(), ctx.uuid("x")));
        ready(Ok(line("inner")))
    });
    i.edge(START, node).edge(node, END);
    let mut g = Graph::<Outer>::builder("outer");
    let host = g.node("host", i.build().unwrap().as_node::<InnerInput, Log>());
    let count = g.node("count", |_: Arc<Outer>| ready(Ok(Outer::update().rounds(1_u64))));
    g.edge(START, host).edge(host, count);
    g.branch(
        count,
        |outer: &Outer| if outer.rounds < 2 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(host),
            Round::Enough => to(END),
        },
    );
    g.build().unwrap()
}

#[tokio::test]
async fn each_task_of_a_host_begins_its_graph_afresh() {
    for kept in [true, false] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let graph = looping(&seen);
        let graph = if kept { graph.checkpointer(Memory::new()) } else { graph };
        for _ in 0..2 {
            graph.run(&thread("t"), input()).await.unwrap();
        }
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|(before, _)| *before == 0), "{seen:?}");
        let ids: std::collections::HashSet<_> = seen.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), seen.len(), "each task draws ids of its own, kept: {kept}");
    }
}

impl From<u64> for InnerInput {
    fn from(item: u64) -> Self {
        Self { text: item.to_string() }
    }
}

#[tokio::test]
async fn a_graph_may_be_the_worker_of_a_fan_out_and_ask_for_each_item() {
    let mut i = Graph::<Inner>::builder("inner");
    let node = i.node("node", |inner: Arc<Inner>, ctx: Context<u64>| {
        ready(if inner.text == "1" {
            ctx.ask(Review).map(|good| line(format!("1 {good}")))
        } else {
            Ok(line(inner.text.clone()))
        })
    });
    i.edge(START, node).edge(node, END);
    let mut g = Graph::<Outer>::builder("outer");
    let work = g.worker("work", i.build().unwrap().as_node::<u64, Log>());
    g.fan_out(START, work, |_: &Outer| 0..3_u64).edge(work, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let open = asked(graph.run(&thread("t"), input()).await.unwrap());
    assert_eq!((open.len(), open[0].node.as_str()), (1, "work/node"));
    let outcome = graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap();
    assert_eq!(log_of(outcome), ["0", "1 true", "2"]);
}

#[tokio::test]
async fn the_step_limit_of_a_run_holds_inside_as_well() {
    let endless = || {
        let mut g = Graph::<Inner>::builder("inner");
        let node = g.node("node", |_: Arc<Inner>| ready(Ok(Inner::update().rounds(1_u64))));
        g.edge(START, node);
        g.branch(
            node,
            |inner: &Inner| {
                if inner.rounds < 150 {
                    Round::Again
                } else {
                    Round::Enough
                }
            },
            |round| match round {
                Round::Again => to(node),
                Round::Enough => to(END),
            },
        );
        hosting(g.build().unwrap(), Policy::new())
    };
    let error = endless().run(&thread("t"), input()).await.unwrap_err();
    assert!(error.to_string().contains("after 100 step(s)"), "{error}");
    assert!(
        endless()
            .run(&thread("t"), input())
            .step_limit(150)
            .await
            .unwrap()
            .done()
            .is_some()
    );
}

#[tokio::test]
async fn what_the_graph_inside_requires_is_missed_before_it_begins() {
    let entered = Count::default();
    let counted = Arc::clone(&entered);
    let mut g = Graph::<Inner>::builder("inner");
    let node = g.node("node", move |_: Arc<Inner>, ctx: Context<u64>| {
        up(&counted);
        ready(ctx.provided::<u32>().map(|number| line(number.to_string())))
    });
    g.requires::<u32>().edge(START, node).edge(node, END);
    let graph = hosting(g.build().unwrap(), Policy::new());
    let error = graph.run(&thread("t"), input()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("graph `inner` needs a `u32`: start the run with `provide(..)`"),
        "{error}"
    );
    assert_eq!(got(&entered), 0);
    let outcome = graph.run(&thread("t"), input()).provide(5_u32).await.unwrap();
    assert_eq!(log_of(outcome), ["before", "5", "after"]);
}

#[tokio::test]
async fn a_graph_that_stalls_inside_fails_its_host() {
    let mut g = Graph::<Inner>::builder("inner");
    let (a, b) = (
        g.node("a", |_: Arc<Inner>| ready(Ok(()))),
        g.node("b", |_: Arc<Inner>| ready(Ok(()))),
    );
    let end = g.node("end", |_: Arc<Inner>| ready(Ok(())));
    g.branch(
        START,
        |_: &Inner| Round::Enough,
        |round| match round {
            Round::Again => to(b),
            Round::Enough => to(a),
        },
    );
    g.join([a, b], end).edge(end, END);
    let error = hosting(g.build().unwrap(), Policy::new())
        .run(&thread("t"), input())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("graph `inner` stalled"), "{error}");
}
