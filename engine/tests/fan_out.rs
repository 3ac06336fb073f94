//! Fan-outs: of nothing, and of items that fail.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, GraphBuilder, Memory, NodeId, Route, START, State, WorkerId, from, to};
use support::threads::thread;

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
