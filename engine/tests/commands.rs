//! Nodes that say where to go on: besides their edges, and out of their graph.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, BuildError, Command, Context, END, Ended, FromState, Graph, GraphBuilder, Memory, NodeId, Route, RunError,
    START, State, SubgraphError,
    dynamic::{Channels, DynamicBuilder, JsonInput, Merge},
    to,
};
use support::{store::Watched, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(input)]
    take: Vec<u8>,
    #[state(reducer = Append)]
    log: Vec<String>,
}

impl FromState<Log> for LogInput {
    fn from_state(log: &Arc<Log>) -> Self {
        Self { take: log.take.clone() }
    }
}

impl From<Arc<Log>> for LogUpdate {
    fn from(inner: Arc<Log>) -> Self {
        line(format!("inside: {:?}", inner.log))
    }
}

#[derive(Route, Clone, Copy, Debug, PartialEq)]
enum Extra {
    Left,
    Right,
}

fn line(text: impl Into<String>) -> LogUpdate {
    Log::update().log([text.into()])
}

fn node(g: &mut GraphBuilder<Log>, name: &'static str) -> NodeId<Log> {
    let node = g.node(name, move |_: Arc<Log>| async move { Ok(line(name)) });
    g.edge(node, END);
    node
}

fn extras(take: &[u8]) -> Vec<Extra> {
    take.iter()
        .filter_map(|at| Extra::ALL.get(usize::from(*at)).copied())
        .collect()
}

/// `choose` leads to `always`, and to whichever of `left` and `right` it is told to take.
fn choosing() -> Graph<Log> {
    let mut g = Graph::<Log>::builder("choosing");
    let choose = g.router_also("choose", |log: Arc<Log>| async move {
        tokio::task::yield_now().await;
        Ok(Command {
            update: line("choose"),
            goto: extras(&log.take),
        })
    });
    let slow = g.node("slow", |_: Arc<Log>| async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Ok(line("slow"))
    });
    let [always, left, right] = ["always", "left", "right"].map(|name| node(&mut g, name));
    g.edge(START, choose)
        .edge(START, slow)
        .edge(choose, always)
        .edge(slow, END);
    g.routes(choose, |extra| match extra {
        Extra::Left => to(left),
        Extra::Right => to(right),
    });
    g.build().unwrap()
}

#[tokio::test]
async fn a_router_that_goes_also_follows_its_edges_whatever_it_chooses() {
    let cases: [(&[u8], &[&str]); 4] = [
        (&[], &["always"]),
        (&[1], &["always", "right"]),
        (&[1, 0], &["always", "left", "right"]),
        (&[0, 0], &["always", "left"]),
    ];
    for (take, expected) in cases {
        let outcome = choosing()
            .run(&thread("t"), LogInput { take: take.to_vec() })
            .await
            .unwrap();
        assert_eq!(outcome.done().unwrap().log[2..], *expected, "{take:?}");
    }
}

#[tokio::test]
async fn what_was_chosen_besides_the_edges_is_the_same_after_a_crash() {
    let store = Watched::default();
    let graph = choosing().checkpointer(store.clone());
    // The first commit admits, the second keeps the choice, the third ends the step.
    store.fail_commit_at(3);
    graph.run(&thread("t"), LogInput { take: vec![1] }).await.unwrap_err();
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["choose", "slow", "always", "right"]);
}

#[test]
fn a_router_that_goes_also_needs_routes_and_an_edge() {
    let build = |edge: bool, routes: bool| {
        let mut g = Graph::<Log>::builder("bare");
        let choose = g.router_also("choose", |_: Arc<Log>| async {
            Ok(Command {
                update: line("choose"),
                goto: None::<Extra>,
            })
        });
        g.edge(START, choose);
        if edge {
            g.edge(choose, END);
        }
        if routes {
            g.routes(choose, |_| to(END));
        }
        g.build()
            .map_err(|errors| errors.errors().iter().map(BuildError::code).collect::<Vec<_>>())
    };
    assert!(build(true, true).is_ok());
    assert_eq!(build(true, false).unwrap_err(), ["graph::unrouted"]);
    assert_eq!(build(false, true).unwrap_err(), ["graph::dead_end"]);
}

/// What a node inside leaves.
#[derive(Serialize, Deserialize)]
struct HandOver {
    to: String,
}

/// `looks` leaves if it is told to take 1; `beside` runs in the same step, `never` in the next.
fn inner(entered: &Arc<AtomicUsize>) -> Graph<Log> {
    let entered = Arc::clone(entered);
    let mut g = Graph::<Log>::builder("inner");
    let first = g.node("first", |_: Arc<Log>| async { Ok(line("first")) });
    let looks = g.node("looks", move |log: Arc<Log>, ctx: Context<()>| {
        entered.fetch_add(1, Ordering::SeqCst);
        async move {
            if log.take.contains(&1) {
                return Err(ctx.leave(&HandOver {
                    to: "accounting".to_owned(),
                }));
            }
            Ok(line("looks"))
        }
    });
    let [beside, never] = ["beside", "never"].map(|name| node(&mut g, name));
    g.edge(START, first)
        .edge(first, looks)
        .edge(first, beside)
        .edge(looks, never);
    g.build().unwrap()
}

#[derive(Route, Clone, Copy)]
enum Desk {
    Done,
    HandOver,
}

fn desk(entered: &Arc<AtomicUsize>) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("desk");
    let host = inner(entered).as_node::<LogInput, Arc<Log>>();
    let host = g.router(
        "host",
        host.or_left(|end: Ended<Arc<Log>, HandOver>| match end {
            Ended::Done(inner) => Command {
                update: LogUpdate::from(inner),
                goto: Desk::Done,
            },
            Ended::Left(HandOver { to }) => Command {
                update: line(format!("to {to}")),
                goto: Desk::HandOver,
            },
        }),
    );
    let [done, hand_over] = ["done", "hand_over"].map(|name| node(&mut g, name));
    g.edge(START, host);
    g.routes(host, |desk| match desk {
        Desk::Done => to(done),
        Desk::HandOver => to(hand_over),
    });
    g.build().unwrap()
}

#[tokio::test]
async fn a_node_may_leave_its_graph_and_its_host_goes_another_way() {
    for kept in [false, true] {
        let graph = desk(&Arc::default());
        let graph = if kept { graph.checkpointer(Memory::new()) } else { graph };
        let stays = graph.run(&thread("stays"), LogInput { take: vec![0] }).await.unwrap();
        let inside = r#"inside: ["first", "beside", "looks", "never"]"#;
        assert_eq!(stays.done().unwrap().log, [inside, "done"]);
        let leaves = graph.run(&thread("leaves"), LogInput { take: vec![1] }).await.unwrap();
        // What the graph inside had written is not carried over.
        assert_eq!(leaves.done().unwrap().log, ["to accounting", "hand_over"]);
    }
}

#[tokio::test]
async fn a_node_that_has_left_is_not_entered_again_whichever_commit_fails() {
    let mut failed = 0;
    for commit in 1..=12 {
        let (store, entered) = (Watched::default(), Arc::new(AtomicUsize::new(0)));
        let graph = desk(&entered).checkpointer(store.clone());
        store.fail_commit_at(commit);
        let input = || LogInput { take: vec![1] };
        let outcome = if let Ok(outcome) = graph.run(&thread("t"), input()).await {
            outcome
        } else {
            failed += 1;
            match graph.resume(&thread("t")).await {
                Err(RunError::UnknownThread { .. }) => graph.run(&thread("t"), input()).await.unwrap(),
                outcome => outcome.unwrap(),
            }
        };
        assert_eq!(
            outcome.done().unwrap().log,
            ["to accounting", "hand_over"],
            "commit {commit}"
        );
        // Once more where what it left was not kept.
        assert!(entered.load(Ordering::SeqCst) <= 2, "commit {commit}");
    }
    assert!(failed >= 6, "only {failed} commits failed");
}

/// `host` runs a graph that runs `inner`, without a word about leaving.
fn deep(entered: &Arc<AtomicUsize>) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("middle");
    let host = g.node("host", inner(entered).as_node::<LogInput, Arc<Log>>());
    g.edge(START, host).edge(host, END);
    g.build().unwrap()
}

#[tokio::test]
async fn only_the_nearest_host_may_take_what_was_left() {
    let mut g = Graph::<Log>::builder("outer");
    let host = deep(&Arc::default()).as_node::<LogInput, Arc<Log>>();
    let host = g.node(
        "host",
        host.or_left(|end: Ended<Arc<Log>, HandOver>| match end {
            Ended::Done(_) => line("done"),
            Ended::Left(_) => line("left"),
        }),
    );
    g.edge(START, host).edge(host, END);
    let error = g
        .build()
        .unwrap()
        .run(&thread("t"), LogInput { take: vec![1] })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("takes nothing from it"), "{error}");
    let error = inner(&Arc::default())
        .run(&thread("t"), LogInput { take: vec![1] })
        .await
        .unwrap_err();
    assert_eq!(error.code(), "run::no_parent");
}

#[tokio::test]
async fn what_was_left_and_does_not_fit_is_an_error_that_says_so() {
    let mut g = Graph::<Log>::builder("outer");
    let host = inner(&Arc::default()).as_node::<LogInput, Arc<Log>>();
    let host = g.node(
        "host",
        host.or_left(|end: Ended<Arc<Log>, u64>| match end {
            Ended::Done(_) => line("done"),
            Ended::Left(number) => line(number.to_string()),
        }),
    );
    g.edge(START, host).edge(host, END);
    let error = g
        .build()
        .unwrap()
        .run(&thread("t"), LogInput { take: vec![1] })
        .await
        .unwrap_err();
    let left = error.node_error::<SubgraphError>().unwrap();
    assert_eq!(left.code(), "subgraph::unexpected_leave");
    assert!(left.to_string().contains("`u64`"), "{left}");
}

#[tokio::test]
async fn what_a_typed_value_leaves_a_dynamic_host_is_written_to_its_channels() {
    let mut g = DynamicBuilder::new("inner", Channels::new([("to", Merge::Last)]).unwrap());
    g.node("looks", |_, ctx: Context<_>| async move {
        Err(ctx.leave(&HandOver {
            to: "accounting".to_owned(),
        }))
    });
    g.edge("START", "looks");
    let inner = g.build().unwrap();
    let mut g = DynamicBuilder::new("outer", Channels::new([("to", Merge::Last)]).unwrap());
    g.subgraph("host", inner).edge("START", "host");
    let state = g
        .build()
        .unwrap()
        .run(&thread("t"), JsonInput::new())
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.get("to"), Some(&"accounting".into()));
}
