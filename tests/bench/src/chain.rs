//! B1, B2 and B12: steps one after another.

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{END, Graph, Route, START, State, TenantId, ThreadId, ThreadKey};

use crate::{
    floor,
    measure::{Figures, as_f64, rounded},
    settings::{Counted, Settings, Side},
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Number {
    #[state(untracked)]
    counted: Counted,
    #[state(input)]
    n: u64,
}

#[derive(Route, Clone, Copy, Debug)]
enum Next {
    Again,
    Enough,
}

pub(crate) fn thread() -> ThreadKey {
    ThreadKey::new(
        TenantId::authenticated("bench").unwrap(),
        ThreadId::new("bench").unwrap(),
    )
}

fn add(number: &Number) -> std::future::Ready<Result<NumberUpdate, stepgraph::NodeError>> {
    ready(Ok(Number::update().n(number.n + 1)))
}

fn chain(nodes: u64) -> Graph<Number> {
    let mut g = Graph::<Number>::builder("chain");
    let mut before = None;
    for at in 0..nodes {
        let node = g.node(format!("n{at:05}"), |number: Arc<Number>| add(&number));
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g.build().unwrap()
}

fn circle(times: u64) -> Graph<Number> {
    let mut g = Graph::<Number>::builder("circle");
    let node = g.node("add", |number: Arc<Number>| add(&number));
    g.edge(START, node);
    g.branch(
        node,
        move |number| if number.n < times { Next::Again } else { Next::Enough },
        move |next| match next {
            Next::Again => stepgraph::to(node),
            Next::Enough => stepgraph::to(END),
        },
    );
    g.build().unwrap()
}

async fn run(graph: &Graph<Number>, thread: &ThreadKey, steps: u64) {
    let limit = u32::try_from(steps + 1).unwrap();
    let outcome = graph.run(thread, NumberInput { n: 0 }).step_limit(limit).await;
    assert_eq!(outcome.unwrap().done().unwrap().n, steps);
}

async fn figures(settings: Settings, part: &str, graph: Graph<Number>, steps: u64, nodes: usize) -> Figures {
    let thread = thread();
    let engine = || settings.repeat(|| run(&graph, &thread, steps));
    let (time, floor) = settings.beside(engine, || floor::chain(settings, nodes, steps)).await;
    Figures {
        part: part.to_owned(),
        steps,
        time,
        floor,
        counts: settings.count(|| ready(()), |()| run(&graph, &thread, steps)),
        ..Figures::default()
    }
}

pub(crate) async fn chains(settings: Settings) -> Vec<Figures> {
    let mut all = Vec::new();
    for nodes in [1_000, 10, 10_000] {
        let part = if nodes == 1_000 { "" } else { &format!("{nodes} nodes") };
        all.push(figures(settings, part, chain(nodes), nodes, usize::try_from(nodes).unwrap()).await);
    }
    all
}

pub(crate) async fn looped(settings: Settings) -> Vec<Figures> {
    const TIMES: u64 = 10_000;
    vec![figures(settings, "", circle(TIMES), TIMES, 1).await]
}

async fn build(nodes: u64) {
    // Nothing is built before it is polled, so that all of it is in what is measured.
    ready(()).await;
    assert_eq!(chain(nodes).name(), "chain");
}

pub(crate) async fn builds(settings: Settings) -> Vec<Figures> {
    let mut all = Vec::new();
    for nodes in [10, 1_000, 10_000] {
        let time = settings.time(Side::Engine, settings.repeat(|| build(nodes))).await;
        let milliseconds = time.map(|time| time.cpu * 1e3);
        all.push(Figures {
            part: format!("{nodes} nodes"),
            steps: nodes,
            time,
            counts: settings.count(|| ready(()), |()| build(nodes)),
            more: vec![
                ("build_ms", json!(milliseconds.map(rounded))),
                (
                    "ns_per_node",
                    json!(milliseconds.map(|time| (time * 1e6 / as_f64(nodes)).round())),
                ),
            ],
            ..Figures::default()
        });
    }
    all
}
