//! What a builder refuses, all at once, and what a graph looks like.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

use std::{
    future::{Ready, ready},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    BuildError, BuildErrors, Command, END, Graph, GraphBuilder, NodeError, NodeId, Policy, Route, START, State, Sum,
    from, to,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Count {
    #[state(reducer = Sum)]
    n: u64,
}

/// One thing that is done to a builder.
type Wire<'a> = dyn Fn(&mut GraphBuilder<Count>) + 'a;

#[derive(Route, Clone, Copy)]
enum Way {
    GoOn,
    TurnBack,
}

/// No way at all; the derive refuses it, a hand does not.
#[derive(Clone, Copy)]
enum Nowhere {}

impl Route for Nowhere {
    const ALL: &'static [Self] = &[];

    fn label(self) -> &'static str {
        match self {}
    }

    fn index(self) -> usize {
        match self {}
    }
}

fn nothing(_: Arc<Count>) -> Ready<Result<(), NodeError>> {
    ready(Ok(()))
}

fn goes_on(_: Arc<Count>) -> Ready<Result<Command<(), Way>, NodeError>> {
    ready(Ok(Command {
        update: (),
        goto: Way::GoOn,
    }))
}

fn builder() -> GraphBuilder<Count> {
    Graph::<Count>::builder("count")
}

/// A builder with a node that is wired from START to END.
fn with_a() -> (GraphBuilder<Count>, NodeId<Count>) {
    let mut g = builder();
    let a = g.node("a", nothing);
    g.edge(START, a).edge(a, END);
    (g, a)
}

fn errors(g: GraphBuilder<Count>) -> Vec<BuildError> {
    g.build().unwrap_err().errors().to_vec()
}

#[test]
fn two_nodes_of_one_name() {
    let (mut g, _) = with_a();
    let again = g.node("a", nothing);
    g.edge(START, again).edge(again, END);
    assert_eq!(errors(g), [BuildError::DuplicateNode("a".into())]);
}

#[test]
fn names_that_mean_something_else() {
    for name in ["START", "END", "", "a/b", "a#1"] {
        let (mut g, _) = with_a();
        let node = g.node(name, nothing);
        g.edge(START, node).edge(node, END);
        assert_eq!(errors(g), [BuildError::ReservedName(name.into())]);
    }
}

#[test]
fn nothing_to_begin_with() {
    assert_eq!(errors(builder()), [BuildError::NoStart]);
}

#[test]
fn a_node_that_is_never_reached() {
    let (mut g, _) = with_a();
    let b = g.node("b", nothing);
    g.edge(b, END);
    assert_eq!(errors(g), [BuildError::Unreachable("b".into())]);
}

#[test]
fn a_node_that_leads_nowhere() {
    let (mut g, a) = with_a();
    let b = g.node("b", nothing);
    g.edge(a, b);
    assert_eq!(errors(g), [BuildError::DeadEnd("b".into())]);
}

#[test]
fn a_router_without_routes() {
    let (mut g, a) = with_a();
    let router = g.router("router", goes_on);
    g.edge(a, router);
    assert_eq!(errors(g), [BuildError::Unrouted("router".into())]);
}

#[test]
fn a_router_with_routes_said_twice() {
    let (mut g, a) = with_a();
    let router = g.router("router", goes_on);
    g.edge(a, router);
    for _ in 0..3 {
        g.routes(router, |_| END);
    }
    assert_eq!(errors(g), [BuildError::RoutedTwice("router".into())]);
}

#[test]
fn a_cycle_without_an_end() {
    let (mut g, a) = with_a();
    let (b, c) = (g.node("b", nothing), g.node("c", nothing));
    g.edge(a, b).edge(b, c).edge(c, b);
    assert_eq!(
        errors(g),
        [BuildError::NoExit("b".into()), BuildError::NoExit("c".into())]
    );
}

#[test]
fn a_cycle_with_an_end_is_fine() {
    let (mut g, a) = with_a();
    g.branch(
        a,
        |_| Way::GoOn,
        |way| match way {
            Way::GoOn => to(END),
            Way::TurnBack => to(a),
        },
    );
    g.build().unwrap();
}

#[test]
fn a_join_that_waits_for_nobody() {
    let (mut g, a) = with_a();
    g.join([] as [NodeId<Count>; 0], a);
    assert_eq!(errors(g), [BuildError::EmptyJoin("a".into())]);
}

#[test]
fn a_join_that_waits_for_what_never_runs() {
    let (mut g, a) = with_a();
    let (b, c) = (g.node("b", nothing), g.node("c", nothing));
    g.edge(b, c).edge(c, END).join([a, b], c);
    assert_eq!(
        errors(g),
        [
            BuildError::Unreachable("b".into()),
            BuildError::ImpossibleJoin {
                to: "c".into(),
                source_node: "b".into()
            }
        ]
    );
}

#[test]
fn a_join_that_waits_for_what_only_it_would_start() {
    let (mut g, a) = with_a();
    let (b, c) = (g.node("b", nothing), g.node("c", nothing));
    g.join([a, c], b).edge(b, c).edge(c, END);
    assert_eq!(
        errors(g),
        [BuildError::ImpossibleJoin {
            to: "b".into(),
            source_node: "c".into()
        }]
    );
}

#[test]
fn joins_that_wait_for_each_other() {
    let (mut g, a) = with_a();
    let (b, c) = (g.node("b", nothing), g.node("c", nothing));
    g.join([a, c], b).join([a, b], c).edge(b, END).edge(c, END);
    assert_eq!(
        errors(g),
        [
            BuildError::ImpossibleJoin {
                to: "b".into(),
                source_node: "c".into()
            },
            BuildError::ImpossibleJoin {
                to: "c".into(),
                source_node: "b".into()
            }
        ]
    );
}

#[test]
fn a_join_after_a_join_is_fine() {
    let (mut g, a) = with_a();
    let [b, c, last] = ["b", "c", "last"].map(|name| g.node(name, nothing));
    g.join([c, b], last).join([a, b], c).edge(START, b).edge(last, END);
    g.build().unwrap();
}

#[test]
fn a_branch_without_a_route() {
    let (mut g, a) = with_a();
    g.branch(
        a,
        |_: &Count| -> Nowhere { panic!("never called") },
        |way| -> stepgraph::End { match way {} },
    );
    assert_eq!(errors(g), [BuildError::EmptyBranch("a".into())]);
}

#[test]
fn an_id_of_another_builder() {
    let (_, foreign) = with_a();
    let wirings: [&Wire<'_>; 4] = [
        &|g| {
            g.edge(START, foreign);
        },
        &|g| {
            g.edge(foreign, END);
        },
        &|g| {
            g.join([foreign], END);
        },
        &|g| {
            g.policy(foreign, Policy::new());
        },
    ];
    for wire in wirings {
        let (mut g, _) = with_a();
        wire(&mut g);
        assert_eq!(errors(g), [BuildError::ForeignId]);
    }
}

/// Everything that can stand beside each other is wrong with it.
fn wrong() -> BuildErrors {
    let (mut g, a) = with_a();
    let again = g.node("a", nothing);
    let reserved = g.node("END", nothing);
    let lost = g.node("lost", nothing);
    let end = g.node("dead_end", nothing);
    let (round, router) = (g.node("round", nothing), g.router("router", goes_on));
    let twice = g.router("twice", goes_on);
    g.edge(a, again).edge(again, END).edge(a, reserved).edge(reserved, END);
    g.edge(lost, END)
        .edge(a, end)
        .edge(a, to(round).and(router).and(twice))
        .edge(round, round);
    g.routes(twice, |_| END).routes(twice, |_| END);
    g.join([from(lost), from(a)], again).join([] as [NodeId<Count>; 0], END);
    g.branch(
        a,
        |_: &Count| -> Nowhere { panic!("never called") },
        |way| -> stepgraph::End { match way {} },
    );
    g.build().unwrap_err()
}

#[test]
fn all_errors_come_at_once_each_with_its_code_and_remedy() {
    insta::assert_snapshot!(wrong(), @r"
    graph `count` cannot be built
      graph::duplicate_node: node `a` is declared twice: give each node a name of its own
      graph::reserved_name: `END` cannot name a node: START, END, the empty name, and `/` or `#` inside a name are taken
      graph::unreachable: node `lost` cannot be reached from START: lead an edge, a branch or a fan-out to it, or remove it
      graph::dead_end: node `dead_end` leads nowhere: add an edge, or `g.edge(dead_end, END)`
      graph::no_exit: node `round` is on a cycle that never ends: lead a branch, a route or an edge of it to END
      graph::unrouted: router `router` has no routes: add `g.routes(router, |route| match route { .. })`
      graph::routed_twice: router `twice` is given routes twice: keep one `g.routes(twice, ..)`
      graph::empty_branch: a branch at `a` has an enum of routes without variants: add one
      graph::impossible_join: the join into `a` can never complete: `lost` cannot be reached from START
      graph::empty_join: the join into `END` has no sources: name the nodes it waits for, or use an edge
    ");
}

#[test]
fn a_graph_without_a_start_says_all_else_as_well() {
    let mut g = builder();
    let _lost = g.node("a", nothing);
    insta::assert_snapshot!(g.build().unwrap_err(), @r"
    graph `count` cannot be built
      graph::no_start: nothing leads from START: add `g.edge(START, ..)`
      graph::unreachable: node `a` cannot be reached from START: lead an edge, a branch or a fan-out to it, or remove it
    ");
}

/// A node, a router, a worker and every kind of way.
fn drawn(first: &'static str) -> Graph<Count> {
    let mut g = Graph::<Count>::builder("drawn");
    let (plan, gather) = (g.node(first, nothing), g.node("gather \"all\"", nothing));
    let judge = g.router("judge", goes_on);
    let work = g.worker("work", |_: u64| ready(Ok(())));
    let side = g.node("side", nothing);
    g.edge(START, plan).edge(plan, side);
    g.fan_out(plan, work, |count: &Count| 0..count.n);
    g.join([from(work), from(side)], gather);
    g.branch(
        gather,
        |_| Way::GoOn,
        |way| match way {
            Way::GoOn => to(judge),
            Way::TurnBack => to(plan).and(side),
        },
    );
    g.routes(judge, |way| match way {
        Way::GoOn => to(END),
        Way::TurnBack => to(plan),
    });
    g.build().unwrap()
}

#[test]
fn a_drawing_shows_every_kind_of_node_and_way() {
    insta::assert_snapshot!(drawn("plan").mermaid(), @r##"
    flowchart TD
        START([START])
        n0["gather #quot;all#quot;"]
        n1{{"judge"}}
        n2["plan"]
        n3["side"]
        n4[["work"]]
        END([END])
        START --> n2
        n2 --> n3
        n4 -->|join| n0
        n3 -->|join| n0
        n0 -.->|"go_on"| n1
        n0 -.->|"turn_back"| n2
        n0 -.->|"turn_back"| n3
        n1 -.->|"go_on"| END
        n1 -.->|"turn_back"| n2
        n2 ==>|each| n4
    "##);
}

#[test]
fn a_fingerprint_is_of_the_graph_and_not_of_the_builder() {
    assert_eq!(drawn("plan").fingerprint(), drawn("plan").fingerprint());
    assert_ne!(drawn("plan").fingerprint(), drawn("plans").fingerprint());
}
