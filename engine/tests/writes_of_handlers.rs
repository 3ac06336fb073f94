//! What handlers say that they write, and beside whom they may run.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::BTreeSet,
    future::{Ready, ready},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Context, END, Failed, Graph, GraphBuilder, HandlerId, Memory, NodeError, NodeId, OnPending, Route,
    RunError, START, State, Warning, checkpoint::At, to,
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chat {
    answer: Option<String>,
    title: Option<String>,
    #[state(reducer = Append)]
    log: Vec<String>,
}

fn answers(_: Arc<Chat>) -> Ready<Result<ChatUpdate, NodeError>> {
    ready(Ok(Chat::update().answer("yes".to_owned())))
}

fn pair(first: &str, second: &str) -> (String, String) {
    (first.to_owned(), second.to_owned())
}

/// The warnings of a graph, as the two writers.
fn told(graph: &Graph<Chat>) -> Vec<(String, String)> {
    let told = graph.warnings().iter().filter_map(|warning| match warning {
        Warning::ParallelWriters { first, second, .. } => Some(pair(first.min(second), first.max(second))),
        _ => None,
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

/// The warnings of a graph of nodes that write `answer` and are wired by `wire`.
fn meet<const N: usize>(
    names: [&'static str; N],
    wire: impl FnOnce(&mut GraphBuilder<Chat>, [NodeId<Chat>; N]),
) -> Vec<(String, String)> {
    let mut g = Graph::builder("meet");
    let nodes = names.map(|name| {
        let node = g.node(name, answers);
        g.writes(node, ["answer"]);
        node
    });
    wire(&mut g, nodes);
    told(&g.build().unwrap())
}

/// A handler that writes `answer`, and says what it is to say.
fn recovers<const N: usize>(g: &mut GraphBuilder<Chat>, says: [&str; N]) -> HandlerId<Chat> {
    let handler = g.handler("recover", |_: Failed<Arc<Chat>>| {
        ready(Ok(Chat::update().answer("sorry".to_owned())))
    });
    g.writes(handler, says).edge(handler, END);
    handler
}

fn fails<T>() -> Ready<Result<T, NodeError>> {
    ready(Err(NodeError::terminal("no")))
}

#[test]
fn a_handler_runs_instead_of_its_node_and_beside_what_is_beside_it() {
    let fallback = meet(["a"], |g, [a]| {
        let recover = recovers(g, ["answer"]);
        g.edge(START, a).edge(a, END).on_error(a, recover);
    });
    assert_eq!(fallback, [], "the same field, in the node's stead");
    let of_a_chain = meet(["a", "b", "c"], |g, [a, b, c]| {
        let recover = recovers(g, ["answer"]);
        g.edge(START, a)
            .edge(a, b)
            .edge(b, c)
            .edge(c, END)
            .on_any_error(recover);
    });
    assert_eq!(of_a_chain, []);
    let beside = meet(["a", "b"], |g, [a, b]| {
        let recover = recovers(g, ["answer"]);
        g.edge(START, a).edge(START, b).edge(a, END).edge(b, END);
        g.on_error(a, recover);
    });
    assert_eq!(beside, [pair("a", "b"), pair("b", "recover")]);
    let of_deferred = meet(["a", "b"], |g, [a, b]| {
        let recover = recovers(g, ["answer"]);
        g.edge(START, a).edge(a, END).edge(START, b).edge(b, END).defer(b);
        g.on_error(b, recover);
    });
    assert_eq!(of_deferred, []);
}

#[test]
fn what_a_handler_leads_to_runs_in_the_step_after_its_node() {
    let later = meet(["a", "b", "late"], |g, [a, b, late]| {
        let recover = recovers(g, ["answer"]);
        g.edge(START, a).edge(a, END).on_error(a, recover).edge(recover, late);
        g.edge(START, b).edge(b, END).edge(late, END);
    });
    assert_eq!(later, [pair("a", "b"), pair("b", "recover")]);
    let again = meet(["a", "b"], |g, [a, b]| {
        let recover = recovers(g, ["answer"]);
        let first = g.node("first", answers);
        g.edge(START, a).edge(a, END).on_error(a, recover).edge(recover, a);
        g.edge(START, first).edge(first, b).edge(b, END);
    });
    assert_eq!(again, [pair("a", "b"), pair("b", "recover")], "the node runs again");
}

#[test]
fn a_handler_of_two_parallel_nodes_is_parallel_to_itself() {
    let mut g = Graph::builder("twice");
    let recover = recovers(&mut g, ["answer"]);
    for name in ["a", "b"] {
        let node = g.node(name, answers);
        g.edge(START, node).edge(node, END).on_error(node, recover);
    }
    let graph = g.build().unwrap();
    assert_eq!(told(&graph), [pair("recover", "recover")]);
    let text = graph.warnings()[0].to_string();
    assert!(text.contains("several tasks of `recover`"), "{text}");
}

#[test]
fn a_handler_chooses_for_each_of_its_tasks() {
    let led = |handled: usize| {
        meet(["left", "right"], |g, [left, right]| {
            let recover = recovers(g, []);
            for name in ["a", "b"].into_iter().take(handled) {
                let node = g.node(name, answers);
                g.edge(START, node).edge(node, END).on_error(node, recover);
            }
            let ends = |way| match way {
                Way::Left => to(left),
                Way::Right => to(right),
            };
            g.branch(recover, |_| Way::Left, ends);
            g.edge(left, END).edge(right, END);
        })
    };
    assert_eq!(led(1), [], "one task takes one way");
    assert_eq!(led(2), [pair("left", "right")]);
}

#[test]
fn a_handler_of_a_worker_is_parallel_to_the_other_items() {
    let mut g = Graph::builder("items");
    let recover = recovers(&mut g, ["answer"]);
    let work = g.worker("work", |_: u8| ready(Ok(Chat::update().answer("yes".to_owned()))));
    g.writes(work, ["answer"])
        .fan_out(START, work, |_| [1_u8, 2])
        .edge(work, END)
        .on_error(work, recover);
    let named: BTreeSet<_> = told(&g.build().unwrap()).into_iter().collect();
    let pairs = [
        pair("recover", "recover"),
        pair("recover", "work"),
        pair("work", "work"),
    ];
    assert_eq!(named, BTreeSet::from(pairs));
}

#[tokio::test]
async fn a_handler_is_held_to_what_it_says_itself() {
    for (says, crowd) in [("answer", false), ("answer", true), ("title", false), ("title", true)] {
        let mut g = Graph::<Chat>::builder("handler");
        let ask = g.node("ask", |_: Arc<Chat>| fails::<ChatUpdate>());
        let recover = recovers(&mut g, [says]);
        g.writes(ask, ["title"]).edge(START, ask).edge(ask, END);
        g.on_error(ask, recover);
        if crowd {
            let beside = g.node("beside", |_: Arc<Chat>| ready(Ok(())));
            g.edge(START, beside).edge(beside, END);
        }
        let ran = g.build().unwrap().run(&thread("t"), ChatInput {}).await;
        if says == "answer" {
            assert_eq!(ran.unwrap().done().unwrap().answer.as_deref(), Some("sorry"));
        } else {
            let error = ran.unwrap_err();
            assert_eq!(error.code(), "run::undeclared_write");
            assert!(error.to_string().starts_with("`recover` wrote `answer`"), "{error}");
        }
    }
}

#[tokio::test]
async fn what_a_handler_had_given_is_held_to_what_it_says_when_new_input_commits_it() {
    for says in ["answer", "title"] {
        let mut g = Graph::<Chat>::builder("commit");
        let ask = g.node("ask", |_: Arc<Chat>| fails::<ChatUpdate>());
        let stuck = g.node("stuck", |chat: Arc<Chat>| async move {
            tokio::task::yield_now().await;
            if chat.answer.is_some() { Ok(()) } else { fails().await }
        });
        let recover = recovers(&mut g, [says]);
        g.writes(ask, ["title"]).on_error(ask, recover);
        g.edge(START, ask).edge(START, stuck).edge(ask, END).edge(stuck, END);
        let graph = g.build().unwrap().checkpointer(Memory::new());
        let error = graph.run(&thread("t"), ChatInput {}).await.unwrap_err();
        assert_eq!(error.code(), "run::node");
        let again = graph
            .run(&thread("t"), ChatInput {})
            .on_pending(OnPending::CommitFinished)
            .await;
        if says == "answer" {
            assert_eq!(again.unwrap().done().unwrap().answer.as_deref(), Some("sorry"));
        } else {
            let error = again.unwrap_err();
            assert!(
                matches!(&error, RunError::UndeclaredWrite { task, field, .. } if task == "recover" && field == "answer"),
                "{error}"
            );
        }
    }
}

const NODES: usize = 5;

#[derive(Route, Clone, Copy)]
enum Way {
    Left,
    Right,
}

/// How a graph of nodes and two handlers is wired, by their numbers; the handlers come behind the nodes.
#[derive(Debug, Clone)]
struct Wiring {
    /// What leads to each node first: START or a node before it.
    parents: Vec<usize>,
    edges: Vec<(usize, usize)>,
    joins: Vec<(usize, usize, usize)>,
    branches: Vec<(usize, usize, usize)>,
    handled: Vec<(usize, usize)>,
    seed: u64,
}

fn wiring() -> impl Strategy<Value = Wiring> {
    let (place, node) = (|| 0..NODES + 2, || 0..NODES);
    (
        vec(0..NODES, NODES),
        vec((place(), node()), 0..6),
        vec((place(), place(), node()), 0..3),
        vec((place(), node(), node()), 0..2),
        vec((node(), 0..2_usize), 0..5),
        any::<u64>(),
    )
        .prop_map(|(parents, edges, joins, branches, handled, seed)| Wiring {
            parents,
            edges,
            joins,
            branches,
            handled,
            seed,
        })
}

/// Heads or tails, the same whenever a graph is run again.
const fn heads(seed: u64, step: u64, own: u64) -> bool {
    (seed ^ (step << 8) ^ own).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59 & 1 == 0
}

/// Nodes that fail by chance, and handlers; all say that they write `answer`.
fn runners(g: &mut GraphBuilder<Chat>, seed: u64) -> (Vec<NodeId<Chat>>, [HandlerId<Chat>; 2]) {
    let nodes: Vec<_> = (0_u64..)
        .take(NODES)
        .map(|own| {
            g.node(format!("n{own}"), move |_: Arc<Chat>, ctx: Context<_>| {
                let step = ctx.step();
                ready(if heads(seed, step.unsigned_abs(), own) {
                    Err(NodeError::terminal("by chance"))
                } else {
                    Ok(Chat::update().log([format!("{step} n{own}")]))
                })
            })
        })
        .collect();
    let handlers = [0, 1].map(|own| {
        g.handler(format!("h{own}"), move |_: Failed<Arc<Chat>>, ctx: Context<_>| {
            ready(Ok(Chat::update().log([format!("{} h{own}", ctx.step())])))
        })
    });
    for node in &nodes {
        g.writes(*node, ["answer", "log"]).edge(*node, END);
    }
    for handler in handlers {
        g.writes(handler, ["answer", "log"]).edge(handler, END);
    }
    (nodes, handlers)
}

fn wired(wiring: &Wiring) -> Graph<Chat> {
    let mut g = Graph::<Chat>::builder("random");
    let seed = wiring.seed;
    let (nodes, handlers) = runners(&mut g, seed);
    for (at, parent) in wiring.parents.iter().enumerate() {
        match parent.checked_sub(1).filter(|parent| *parent < at) {
            Some(parent) => g.edge(nodes[parent], nodes[at]),
            None => g.edge(START, nodes[at]),
        };
    }
    for (from, to) in &wiring.edges {
        match from.checked_sub(NODES) {
            Some(handler) => g.edge(handlers[handler], nodes[*to]),
            None => g.edge(nodes[*from], nodes[*to]),
        };
    }
    let place = |at: usize| {
        at.checked_sub(NODES)
            .map_or_else(|| stepgraph::from(nodes[at]), |at| stepgraph::from(handlers[at]))
    };
    for (one, other, to) in &wiring.joins {
        g.join([place(*one), place(*other)], nodes[*to]);
    }
    for (from, left, right) in &wiring.branches {
        let (left, right) = (nodes[*left], nodes[*right]);
        let choose = move |chat: &Chat| {
            if heads(seed, 0, u64::try_from(chat.log.len()).unwrap()) {
                Way::Left
            } else {
                Way::Right
            }
        };
        let ends = move |way| match way {
            Way::Left => to(left),
            Way::Right => to(right),
        };
        match from.checked_sub(NODES) {
            Some(handler) => g.branch(handlers[handler], choose, ends),
            None => g.branch(nodes[*from], choose, ends),
        };
    }
    // Each handler has one node at least; the others may have either, so that many runs go on for long.
    let first = [(0, 0), (1, 1)];
    let mut given = BTreeSet::new();
    for (node, handler) in first
        .iter()
        .chain(&wiring.handled)
        .filter(|(node, _)| given.insert(*node))
    {
        g.on_error(nodes[*node], handlers[*handler]);
    }
    g.on_any_error(handlers[0]);
    g.build().unwrap()
}

/// Who ran in one step, in every step of a run.
async fn met(graph: &Graph<Chat>) -> BTreeSet<(String, String)> {
    let graph = graph.clone().checkpointer(Memory::new());
    // Many of these end by a failure, or never.
    let _ended = graph.run(&thread("t"), ChatInput {}).step_limit(20).await;
    let log = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state.log;
    let ran: Vec<_> = log.iter().filter_map(|line| line.split_once(' ')).collect();
    let all = ran.iter().enumerate();
    let both = all.flat_map(|(at, one)| ran.iter().skip(at + 1).map(move |other| (one, other)));
    both.filter(|(one, other)| one.0 == other.0)
        .map(|(one, other)| pair(one.1.min(other.1), one.1.max(other.1)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whoever_meets_a_handler_in_a_run_of_any_graph_was_named_when_it_was_built(wiring in wiring()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let graph = wired(&wiring);
        let named: BTreeSet<_> = told(&graph).into_iter().collect();
        let met = runtime.block_on(met(&graph));
        prop_assert!(met.is_subset(&named), "met {met:?}, named {named:?}");
    }
}
