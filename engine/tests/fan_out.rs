//! Fan-outs: of nothing, and of items that fail.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect, and a node may panic"
)]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Append, Ask, Context, END, EventKind, FanOutPolicy, Graph, GraphBuilder, ItemError, Memory, NodeError,
    NodeId, Outcome, Policy, ReaderGone, Retry, Route, RunError, START, State, WorkerId,
    dynamic::{Channels, DynamicBuilder, Goto, JsonInput, JsonUpdate, Merge},
    events, from, to,
};
use support::{store::Watched, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(input)]
    items: Vec<u64>,
    #[state(reducer = Append)]
    log: Vec<String>,
}

#[derive(Route, Clone, Copy)]
enum Only {
    On,
}

fn line(text: impl Into<String>) -> WorkUpdate {
    Work::update().log([text.into()])
}

fn node(g: &mut GraphBuilder<Work>, name: &'static str) -> NodeId<Work> {
    g.node(name, move |_: Arc<Work>| async move { Ok(line(name)) })
}

fn worker(g: &mut GraphBuilder<Work>, name: &'static str) -> WorkerId<Work, u64> {
    g.worker(name, move |item: u64| async move { Ok(line(format!("{name} {item}"))) })
}

async fn log_of(graph: &Graph<Work>, items: impl IntoIterator<Item = u64>) -> Vec<String> {
    let items = items.into_iter().collect();
    graph
        .run(&thread("t"), WorkInput { items })
        .await
        .unwrap()
        .done()
        .unwrap()
        .log
}

#[tokio::test]
async fn a_fan_out_of_nothing_leads_on_to_what_waits_for_its_worker() {
    let mut g = Graph::<Work>::builder("joined");
    let (plan, other, gather) = (node(&mut g, "plan"), node(&mut g, "other"), node(&mut g, "gather"));
    let work = worker(&mut g, "work");
    g.edge(START, plan).edge(plan, other).edge(gather, END);
    g.fan_out(plan, work, |work: &Work| work.items.clone());
    g.join([from(work), from(other)], gather);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    assert_eq!(log_of(&graph, []).await, ["plan", "other", "gather"]);
    let graph = graph.checkpointer(Memory::new());
    assert_eq!(log_of(&graph, [1]).await, ["plan", "other", "work 1", "gather"]);
}

#[tokio::test]
async fn edges_of_a_worker_without_items_are_followed_from_start_and_through_workers_behind_it() {
    let mut g = Graph::<Work>::builder("edges");
    let (first, second, after) = (worker(&mut g, "first"), worker(&mut g, "second"), node(&mut g, "after"));
    g.fan_out(START, first, |work: &Work| work.items.clone());
    g.fan_out(first, second, |work: &Work| work.items.clone());
    g.edge(second, after).edge(after, END);
    assert_eq!(log_of(&g.build().unwrap(), []).await, ["after"]);
}

#[tokio::test]
async fn a_worker_that_another_fan_out_feeds_is_waited_for() {
    let mut g = Graph::<Work>::builder("two");
    let (a, b, gather) = (node(&mut g, "a"), node(&mut g, "b"), node(&mut g, "gather"));
    let work = worker(&mut g, "work");
    g.edge(START, a).edge(START, b).edge(gather, END);
    g.fan_out(a, work, |work: &Work| work.items.clone());
    g.fan_out(b, work, |_: &Work| Vec::new());
    g.join([work], gather);
    assert_eq!(
        log_of(&g.build().unwrap(), [1, 2]).await,
        ["a", "b", "work 1", "work 2", "gather"]
    );
}

#[tokio::test]
async fn workers_that_feed_each_other_nothing_come_to_an_end() {
    let mut g = Graph::<Work>::builder("circle");
    let (first, second, after) = (worker(&mut g, "first"), worker(&mut g, "second"), node(&mut g, "after"));
    g.fan_out(START, first, |_: &Work| Vec::new());
    g.fan_out(first, second, |_: &Work| Vec::new());
    g.fan_out(second, first, |_: &Work| Vec::new());
    g.branch(first, |_: &Work| Only::On, |Only::On| to(after));
    g.edge(second, after).edge(after, END);
    assert_eq!(log_of(&g.build().unwrap(), []).await, ["after"]);
}

/// Odd items fail, each in its own way; `tries` counts the attempts.
fn picky(tries: &Arc<AtomicUsize>, policy: Option<FanOutPolicy<Work>>) -> Graph<Work> {
    let tries = Arc::clone(tries);
    let mut g = Graph::<Work>::builder("picky");
    let work = g.worker("work", move |item: u64| {
        tries.fetch_add(1, Ordering::SeqCst);
        async move {
            match item {
                1 => Err(NodeError::retryable("one")),
                3 => panic!("three"),
                5 => {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                    Ok(line("item 5"))
                }
                _ => Ok(line(format!("item {item}"))),
            }
        }
    });
    let gather = node(&mut g, "gather");
    let twice = Retry::attempts(NonZeroU32::new(2).unwrap());
    g.policy(work, Policy::new().timeout(Duration::from_secs(1)).retry(twice));
    if let Some(policy) = policy {
        g.fan_out_policy(work, policy);
    }
    g.fan_out(START, work, |work: &Work| work.items.clone());
    g.join([work], gather).edge(gather, END);
    g.build().unwrap()
}

fn collect() -> FanOutPolicy<Work> {
    FanOutPolicy::collect(|failure: ItemError| {
        let ItemError {
            index,
            node,
            code,
            attempts,
            ..
        } = &failure;
        line(format!("{node} {index}: {code} after {attempts}"))
    })
}

#[tokio::test(start_paused = true)]
async fn an_item_that_fails_for_good_fails_the_run_unless_told_otherwise() {
    for policy in [None, Some(FanOutPolicy::fail())] {
        let graph = picky(&Arc::default(), policy);
        let input = WorkInput { items: vec![0, 1, 2] };
        match graph.run(&thread("t"), input).await.unwrap_err() {
            RunError::Node { task, attempts, .. } => assert_eq!((task.as_str(), attempts), ("work#1", 2)),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_skipped_has_finished_and_written_nothing() {
    let graph = picky(&Arc::default(), Some(FanOutPolicy::skip()));
    assert_eq!(log_of(&graph, [0, 1, 2, 3]).await, ["item 0", "item 2", "gather"]);
    assert_eq!(log_of(&graph, [1]).await, ["gather"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_failure_is_collected_as_takes_the_place_of_the_items_result() {
    let graph = picky(&Arc::default(), Some(collect()));
    let expected = [
        "item 0",
        "work 1: node::error after 2",
        "item 2",
        "work 3: node::panic after 1",
        "item 4",
        "work 5: node::timeout after 2",
        "gather",
    ];
    assert_eq!(log_of(&graph, 0..=5).await, expected);
    assert_eq!(log_of(&graph, [1]).await, ["work 0: node::error after 2", "gather"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_was_collected_is_told_as_a_failure() {
    let graph = picky(&Arc::default(), Some(collect()));
    let (sender, mut reader) = events(100, ReaderGone::Finish);
    graph
        .run(&thread("t"), WorkInput { items: vec![3] })
        .events(sender)
        .await
        .unwrap();
    let mut told = Vec::new();
    while let Some(event) = reader.next().await {
        match event.kind {
            EventKind::Failed { task, error, .. } => told.push(format!("{task} {error}")),
            EventKind::Update { task, .. } => told.push(task),
            _ => {}
        }
    }
    assert_eq!(told, ["work#0 panicked: three", "work#0", "gather"]);
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_failure_was_collected_does_not_run_again_after_a_crash() {
    let (store, tries) = (Watched::default(), Arc::new(AtomicUsize::new(0)));
    let graph = picky(&tries, Some(collect())).checkpointer(store.clone());
    // The first commit admits, the second keeps what has ended while another item runs, the third its first attempt.
    store.fail_commit_at(4);
    let input = WorkInput { items: vec![3, 5] };
    let error = graph.run(&thread("t"), input).await.unwrap_err();
    assert!(matches!(error, RunError::Checkpoint(_)), "{error}");
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(
        state.log,
        ["work 0: node::panic after 1", "work 1: node::timeout after 2", "gather"]
    );
    assert_eq!(
        tries.load(Ordering::SeqCst),
        4,
        "only the item that had no end yet was tried again, and its first attempt counts"
    );
}

#[tokio::test]
async fn a_collector_that_panics_fails_its_item() {
    let graph = picky(
        &Arc::default(),
        Some(FanOutPolicy::collect(|_| panic!("no collection"))),
    );
    let error = graph.run(&thread("t"), WorkInput { items: vec![3] }).await.unwrap_err();
    assert!(error.to_string().contains("no collection"), "{error}");
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

#[tokio::test]
async fn a_question_of_an_item_is_no_failure() {
    let mut g = Graph::<Work>::builder("asking");
    let work = g.worker("work", |item: u64, ctx: Context<()>| async move {
        Ok(line(format!("item {item}: {}", ctx.ask(Sure)?)))
    });
    g.fan_out_policy(work, FanOutPolicy::skip());
    g.fan_out(START, work, |work: &Work| work.items.clone()).edge(work, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let outcome = graph.run(&thread("t"), WorkInput { items: vec![1, 2] }).await.unwrap();
    let Outcome::Asked(questions) = outcome else {
        panic!("{outcome:?}")
    };
    let answers = questions
        .into_iter()
        .map(|question| (question.id, json!(true)))
        .collect();
    let outcome = graph
        .resume(&thread("t"))
        .answers(Answers::Many(answers))
        .await
        .unwrap();
    assert_eq!(outcome.done().unwrap().log, ["item 1: true", "item 2: true"]);
}

#[tokio::test]
async fn a_dynamic_graph_collects_what_was_sent_and_failed_but_fails_with_a_triggered_node() {
    let graph = |sent: bool| {
        let mut g = DynamicBuilder::new("dynamic", Channels::new([("log", Merge::Append)]).unwrap());
        g.node("work", |_, _| async { Err(NodeError::terminal("no")) });
        g.fan_out_policy(
            "work",
            FanOutPolicy::collect(|failure| JsonUpdate::new().set("log", json!([failure.to_string()]))),
        );
        g.branch("START", move |_| {
            vec![if sent {
                Goto::Send("work".to_owned(), json!(1))
            } else {
                Goto::Node("work".to_owned())
            }]
        });
        g.build().unwrap()
    };
    let state = graph(true)
        .run(&thread("t"), JsonInput::new())
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(
        state.get("log"),
        Some(&json!(["item 0 of `work` failed after 1 attempt(s): no"]))
    );
    let error = graph(false).run(&thread("t"), JsonInput::new()).await.unwrap_err();
    assert_eq!(error.code(), "run::node");
}
