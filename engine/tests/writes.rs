//! What nodes say that they write: a write beside it fails the run, and who may meet in one step is told when it is built.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::BTreeSet,
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{
    Append, BuildError, Command, END, Graph, GraphBuilder, JoinRule, Memory, NodeError, NodeId, OnPending, Route,
    RunError, START, State, Warning,
    checkpoint::At,
    dynamic::{Channels, DynamicBuilder, Goto, JsonState, JsonUpdate, Merge, TaskInput},
    from, to,
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chat {
    answer: Option<String>,
    title: Option<String>,
    #[state(reducer = Append)]
    log: Vec<String>,
}

#[derive(Route, Clone, Copy)]
enum Way {
    Left,
    Right,
}

fn answers(_: Arc<Chat>) -> Ready<Result<ChatUpdate, NodeError>> {
    ready(Ok(Chat::update().answer("yes".to_owned()).log(["here".to_owned()])))
}

/// Nodes that all say that they write `answer` and the log.
fn writers<const N: usize>(g: &mut GraphBuilder<Chat>, names: [&'static str; N]) -> [NodeId<Chat>; N] {
    names.map(|name| {
        let node = g.node(name, answers);
        g.writes(node, ["answer", "log"]);
        node
    })
}

/// The warnings of a graph, as the two writers.
fn told<S: State>(graph: &Graph<S>) -> Vec<(String, String)> {
    let told = graph.warnings().iter().filter_map(|warning| match warning {
        Warning::ParallelWriters { first, second, .. } => Some((first.to_string(), second.to_string())),
        _ => None,
    });
    told.collect()
}

fn pair(first: &str, second: &str) -> (String, String) {
    (first.to_owned(), second.to_owned())
}

/// The warnings of a graph of `writers` that are wired by `wire`.
fn meet<const N: usize>(
    names: [&'static str; N],
    wire: impl FnOnce(&mut GraphBuilder<Chat>, [NodeId<Chat>; N]),
) -> Vec<(String, String)> {
    let mut g = Graph::builder("meet");
    let nodes = writers(&mut g, names);
    wire(&mut g, nodes);
    told(&g.build().unwrap())
}

#[tokio::test]
async fn a_node_that_writes_what_it_says_runs_as_any_other() {
    let mut g = Graph::<Chat>::builder("said");
    let [node] = writers(&mut g, ["ask"]);
    g.edge(START, node).edge(node, END);
    let outcome = g.build().unwrap().run(&thread("t"), ChatInput {}).await.unwrap();
    assert_eq!(outcome.done().unwrap().answer.as_deref(), Some("yes"));
}

#[tokio::test]
async fn a_write_beside_what_a_node_says_names_node_field_step_and_thread_and_merges_nothing() {
    for alone in [true, false] {
        let mut g = Graph::<Chat>::builder("beside");
        let first = g.node("first", |_: Arc<Chat>| {
            ready(Ok(Chat::update().title("a title".to_owned())))
        });
        let ask = g.node("ask", answers);
        g.writes(ask, ["answer"]).writes(first, ["title"]);
        g.edge(START, first).edge(first, ask).edge(ask, END);
        if !alone {
            let other = g.node("a", |_: Arc<Chat>| ready(Ok(Chat::update().log(["other".to_owned()]))));
            g.edge(first, other).edge(other, END);
        }
        let graph = g.build().unwrap().checkpointer(Memory::new());
        let error = graph.run(&thread("t"), ChatInput {}).await.unwrap_err();
        assert_eq!(error.code(), "run::undeclared_write");
        let text = error.to_string();
        for part in ["`ask` wrote `log` in step 2", "thread acme/t", "`g.writes(..)`"] {
            assert!(text.contains(part), "{text}");
        }
        let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
        assert_eq!(kept.entry.step, 1);
        let kept = graph
            .state(&thread("t"), At::Seq(kept.entry.seq))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (kept.state.title.as_deref(), kept.state.answer, kept.state.log),
            (Some("a title"), None, vec![])
        );
    }
}

#[tokio::test]
async fn a_thread_whose_step_was_refused_goes_on_once_the_node_says_what_it_writes() {
    let store = Arc::new(Memory::new());
    let graph = |fields: &[&str]| {
        let mut g = Graph::<Chat>::builder("mended");
        let ask = g.node("ask", answers);
        g.writes(ask, fields).edge(START, ask).edge(ask, END);
        g.build().unwrap().shared_checkpointer(store.clone())
    };
    graph(&["answer"]).run(&thread("t"), ChatInput {}).await.unwrap_err();
    let outcome = graph(&["answer", "log"]).resume(&thread("t")).await.unwrap();
    assert_eq!(outcome.done().unwrap().log, ["here"]);
}

#[tokio::test]
async fn routers_and_workers_are_held_to_what_they_say() {
    let mut g = Graph::<Chat>::builder("kinds");
    let router = g.router("route", |_: Arc<Chat>| {
        ready(Ok(Command {
            update: Chat::update().title("t".to_owned()),
            goto: Way::Left,
        }))
    });
    g.writes(router, [""; 0])
        .edge(START, router)
        .routes(router, |_| to(END));
    let error = g.build().unwrap().run(&thread("t"), ChatInput {}).await.unwrap_err();
    assert!(error.to_string().starts_with("`route` wrote `title`"), "{error}");

    let mut g = Graph::<Chat>::builder("kinds");
    let work = g.worker("work", |item: u8| {
        let update = Chat::update();
        ready(Ok(if item == 7 {
            update.title("t".to_owned())
        } else {
            update.log(["fine".to_owned()])
        }))
    });
    g.writes(work, ["log"])
        .fan_out(START, work, |_| [1_u8, 7, 2])
        .edge(work, END);
    let error = g.build().unwrap().run(&thread("t"), ChatInput {}).await.unwrap_err();
    assert!(error.to_string().starts_with("`work#1` wrote `title`"), "{error}");
}

#[tokio::test]
async fn what_had_finished_in_an_unfinished_step_is_held_to_it_when_new_input_commits_it() {
    let mut g = Graph::<Chat>::builder("commit");
    let ask = g.node("ask", answers);
    let fails = g.node("fails", |_: Arc<Chat>| async {
        tokio::task::yield_now().await;
        Err::<(), _>(NodeError::terminal("no"))
    });
    g.writes(ask, ["answer"])
        .edge(START, ask)
        .edge(START, fails)
        .edge(ask, END)
        .edge(fails, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph.run(&thread("t"), ChatInput {}).await.unwrap_err();
    assert_eq!(error.code(), "run::node");
    let again = graph
        .run(&thread("t"), ChatInput {})
        .on_pending(OnPending::CommitFinished);
    let error = again.await.unwrap_err();
    assert!(
        matches!(&error, RunError::UndeclaredWrite { task, field, .. } if task == "ask" && field == "log"),
        "{error}"
    );
}

#[test]
fn fields_that_the_state_does_not_have_are_errors_of_the_build() {
    let mut g = Graph::<Chat>::builder("unknown");
    let ask = g.node("ask", answers);
    g.writes(ask, ["anwser", "log"]).edge(START, ask).edge(ask, END);
    let errors = g.build().unwrap_err();
    let expected = BuildError::UnknownField {
        node: "ask".into(),
        field: "anwser".to_owned(),
    };
    assert_eq!(errors.errors(), [expected]);
    assert_eq!(errors.errors()[0].code(), "graph::unknown_field");
    assert!(
        errors.to_string().contains("`ask` is said to write `anwser`"),
        "{errors}"
    );
}

#[test]
fn two_writers_of_a_diamond_are_named_with_the_field_and_the_remedy() {
    let mut g = Graph::<Chat>::builder("diamond");
    let [a, b] = writers(&mut g, ["a", "b"]);
    g.edge(START, a).edge(START, b).edge(a, END).edge(b, END);
    let graph = g.build().unwrap();
    let [warning] = graph.warnings() else {
        panic!("{:?}", graph.warnings())
    };
    assert_eq!(warning.code(), "graph::parallel_writers");
    let text = warning.to_string();
    for part in [
        "`a` and `b`",
        "`answer`",
        "let one of them write it",
        "a reducer that merges",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_worker_is_parallel_to_itself() {
    let mut g = Graph::<Chat>::builder("worker");
    let work = g.worker("work", |item: u8| ready(Ok(Chat::update().title(item.to_string()))));
    g.writes(work, ["title"])
        .fan_out(START, work, |_| [1_u8, 2])
        .edge(work, END);
    let graph = g.build().unwrap();
    assert_eq!(told(&graph), [pair("work", "work")]);
    assert!(graph.warnings()[0].to_string().contains("several tasks of `work`"));
}

#[test]
fn nodes_that_never_run_in_one_step_are_not_named() {
    let chain = meet(["a", "b", "c"], |g, [a, b, c]| {
        g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
    });
    assert_eq!(chain, []);
    let excluding = meet(["a", "b", "c"], |g, [a, b, c]| {
        g.edge(START, a);
        g.branch(
            a,
            |_| Way::Left,
            |way| match way {
                Way::Left => to(b),
                Way::Right => to(c),
            },
        );
        g.edge(b, a).edge(c, END);
    });
    assert_eq!(excluding, []);
    let joined = meet(["a", "b", "c", "d"], |g, [a, b, c, d]| {
        let between = g.node("between", answers);
        g.edge(START, a).edge(START, between).edge(between, b);
        g.join([a, b], c).edge(c, d).edge(d, END);
    });
    assert_eq!(joined, [], "after a join of two ways of different length");
    let offset = meet(["a", "b"], |g, [a, b]| {
        let between = g.node("between", answers);
        g.edge(START, a)
            .edge(START, between)
            .edge(between, b)
            .edge(a, END)
            .edge(b, END);
    });
    assert_eq!(offset, [], "side by side, and in different steps");
    let deferred = meet(["a", "b"], |g, [a, b]| {
        g.edge(START, a).edge(START, b).defer(b).edge(a, END).edge(b, END);
    });
    assert_eq!(deferred, []);
}

#[test]
fn nodes_that_may_run_in_one_step_are_named() {
    let one_route = meet(["a", "b"], |g, [a, b]| {
        g.branch(
            START,
            |_| Way::Left,
            |way| match way {
                Way::Left => to(a).and(b),
                Way::Right => to(END),
            },
        );
        g.edge(a, END).edge(b, END);
    });
    assert_eq!(one_route, [pair("a", "b")]);
    let routes_besides = meet(["a", "b", "c"], |g, [a, b, c]| {
        let also = g.router_also("also", |_: Arc<Chat>| {
            ready(Ok(Command {
                update: (),
                goto: vec![Way::Left, Way::Right],
            }))
        });
        g.edge(START, also).edge(also, a);
        g.routes(also, |way| match way {
            Way::Left => to(b),
            Way::Right => to(c),
        });
        g.edge(a, END).edge(b, END).edge(c, END);
    });
    assert_eq!(routes_besides, [pair("a", "b"), pair("a", "c"), pair("b", "c")]);
    let beside_a_branch = meet(["a", "b"], |g, [a, b]| {
        g.edge(START, a);
        g.branch(
            START,
            |_| Way::Left,
            |way| match way {
                Way::Left => to(b),
                Way::Right => to(END),
            },
        );
        g.edge(a, END).edge(b, END);
    });
    assert_eq!(beside_a_branch, [pair("a", "b")]);
    let a_loop_that_goes_on = meet(["a", "b"], |g, [a, b]| {
        g.edge(START, a).edge(a, b).edge(b, END);
        g.branch(
            a,
            |_| Way::Left,
            |way| match way {
                Way::Left => to(a),
                Way::Right => to(END),
            },
        );
    });
    assert_eq!(a_loop_that_goes_on, [pair("a", "b")], "every way to `b` leads by `a`");
    let in_time = meet(["a", "b", "late"], |g, [a, b, late]| {
        let slow = g.node("slow", answers);
        g.edge(START, a).edge(START, slow).edge(slow, b);
        g.join_when(JoinRule::all().within(Duration::from_secs(1)), [from(a), from(b)], late);
        g.edge(late, END);
    });
    assert_eq!(in_time, [pair("b", "late")], "a join that need not wait for `b`");
    let deferred = meet(["a", "b"], |g, [a, b]| {
        g.edge(START, a).edge(a, b).defer(b).edge(START, b).edge(b, END);
        let c = g.node("c", answers);
        g.writes(c, ["answer"]).defer(c).edge(a, c).edge(c, END);
    });
    assert_eq!(deferred, [pair("b", "c")], "deferred nodes are released together");
}

#[test]
fn a_fan_out_without_items_lets_what_follows_meet_what_is_beside_it() {
    let named = meet(["a", "b"], |g, [a, b]| {
        let work = g.worker("work", |_: u8| ready(Ok(())));
        g.edge(START, a)
            .fan_out(START, work, |_| [1_u8; 0])
            .edge(work, b)
            .edge(a, END)
            .edge(b, END);
    });
    assert_eq!(named, [pair("a", "b")]);
}

fn channels() -> Channels {
    Channels::new([("answer", Merge::Last), ("log", Merge::Append)]).unwrap()
}

#[tokio::test]
async fn a_dynamic_graph_says_the_same_by_names() {
    let graph = |fields: &[&str]| {
        let mut g = DynamicBuilder::new("dynamic", channels());
        for name in ["a", "b"] {
            g.node(name, |_: TaskInput, _| async {
                Ok(JsonUpdate::new().set("log", json!(["here"])).into())
            });
            g.writes(name, fields.iter().copied())
                .edge("START", name)
                .edge(name, "END");
        }
        g
    };
    let built = graph(&["answer"]).build().unwrap();
    assert_eq!(told(&built), [pair("a", "b")]);
    let input = built.shape().input(serde_json::Map::new()).unwrap();
    let error = built.run(&thread("t"), input).await.unwrap_err();
    assert!(error.to_string().starts_with("`a` wrote `log`"), "{error}");

    let mut g = graph(&["answer", "nothing"]);
    g.writes("nobody", ["answer"]);
    let codes: Vec<_> = g.build().unwrap_err().errors().iter().map(BuildError::code).collect();
    assert_eq!(codes.len(), 3, "{codes:?}");
    assert!(
        codes.contains(&"graph::unknown_node") && codes.contains(&"graph::unknown_field"),
        "{codes:?}"
    );
}

/// How a graph of some nodes is wired, by their numbers; 0 stands for START where something begins.
#[derive(Debug, Clone)]
struct Wiring {
    edges: Vec<(usize, usize)>,
    joins: Vec<(usize, usize, usize, u8)>,
    branches: Vec<(usize, usize, usize)>,
    deferred: Vec<usize>,
    seed: u64,
}

const NODES: usize = 6;

fn wiring() -> impl Strategy<Value = Wiring> {
    let node = || 1..=NODES;
    (
        vec((0..=NODES, node()), 2..9),
        vec((node(), node(), node(), 0..3_u8), 0..3),
        vec((node(), node(), node()), 0..3),
        vec(node(), 0..2),
        any::<u64>(),
    )
        .prop_map(|(mut edges, joins, branches, deferred, seed)| {
            edges.push((0, 1));
            Wiring {
                edges,
                joins,
                branches,
                deferred,
                seed,
            }
        })
}

fn wired(wiring: &Wiring) -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("random", channels());
    let name = |at: usize| if at == 0 { "START".to_owned() } else { format!("n{at}") };
    for at in 1..=NODES {
        let own = name(at);
        g.node(own.clone(), move |_: TaskInput, ctx: stepgraph::Context<Value>| {
            let met = json!([format!("{} {own}", ctx.step())]);
            async move { Ok(JsonUpdate::new().set("log", met).into()) }
        });
        g.writes(name(at), ["answer", "log"]);
    }
    for (from, to) in &wiring.edges {
        g.edge(name(*from), name(*to));
    }
    for (one, other, to, rule) in &wiring.joins {
        let rule = match rule {
            0 => JoinRule::all(),
            1 => JoinRule::any(),
            _ => JoinRule::all().within(Duration::from_hours(1)),
        };
        g.join_when(rule, [name(*one), name(*other)], name(*to));
    }
    for (at, (from, left, right)) in wiring.branches.iter().enumerate() {
        let seed = wiring.seed.rotate_right(u32::try_from(at).unwrap() * 7);
        let ends = [
            ("left", name(*left)),
            ("right", name(*right)),
            ("end", "END".to_owned()),
        ];
        g.labelled_branch(name(*from), ends, move |state| {
            let turns = state.get("log").and_then(Value::as_array).map_or(0, Vec::len);
            let way = ["left", "right", "end", "left"][usize::try_from(seed >> (turns % 31 * 2) & 3).unwrap()];
            vec![Goto::Node(way.to_owned())]
        });
    }
    for at in &wiring.deferred {
        g.defer(name(*at));
    }
    g.build().unwrap()
}

/// Who ran in one step, in every step of a run.
async fn met(graph: &Graph<JsonState>) -> BTreeSet<(String, String)> {
    let graph = graph.clone().checkpointer(Memory::new());
    let input = graph.shape().input(serde_json::Map::new()).unwrap();
    // Most of these never end by themselves.
    let _ended = graph.run(&thread("t"), input).step_limit(24).await;
    let state = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state;
    let log = state.get("log").and_then(Value::as_array).cloned().unwrap_or_default();
    let ran: Vec<(&str, &str)> = log.iter().filter_map(|line| line.as_str()?.split_once(' ')).collect();
    let both = ran.iter().flat_map(|one| ran.iter().map(move |other| (one, other)));
    both.filter(|(one, other)| one.0 == other.0 && one.1 < other.1)
        .map(|(one, other)| pair(one.1, other.1))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whoever_meets_in_a_run_of_any_graph_was_named_when_it_was_built(wiring in wiring()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let graph = wired(&wiring);
        let named: BTreeSet<_> = told(&graph).into_iter().collect();
        let met = runtime.block_on(met(&graph));
        prop_assert!(met.is_subset(&named), "met {met:?}, named {named:?}");
    }
}
