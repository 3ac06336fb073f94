//! Handlers as they are declared: what is wrong with them, and how they are drawn.

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Append, BuildError, END, Failed, Graph, GraphBuilder, HandlerId, NodeError, NodeId, START, State};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
}

/// A node that fails always.
fn fails(g: &mut GraphBuilder<Work>, name: &'static str) -> NodeId<Work> {
    g.node(name, |_: Arc<Work>| {
        ready(Err::<WorkUpdate, _>(NodeError::terminal("broken")))
    })
}

/// A handler that writes its name.
fn notes(g: &mut GraphBuilder<Work>, name: &'static str) -> HandlerId<Work> {
    g.handler(name, move |_: Failed<Arc<Work>>| {
        ready(Ok(Work::update().log([name.to_owned()])))
    })
}

/// The errors of a graph of one node and one handler, wired by `wire`.
fn problems(wire: impl Fn(&mut GraphBuilder<Work>, NodeId<Work>, HandlerId<Work>)) -> Vec<BuildError> {
    let mut g = Graph::<Work>::builder("wrong");
    let node = fails(&mut g, "node");
    let recover = notes(&mut g, "recover");
    g.edge(START, node);
    wire(&mut g, node, recover);
    g.build().map_or_else(|errors| errors.errors().to_vec(), |_| Vec::new())
}

#[test]
fn what_is_wrong_with_handlers_is_found_when_the_graph_is_built() {
    let unused = problems(|g, node, recover| {
        g.edge(node, END).edge(recover, END);
    });
    assert_eq!(unused, [BuildError::UnusedHandler("recover".into())]);
    let dead = problems(|g, node, recover| {
        g.edge(node, END).on_error(node, recover);
    });
    assert_eq!(dead, [BuildError::DeadEnd("recover".into())]);
    let only_by_failing = problems(|g, node, recover| {
        g.on_error(node, recover).edge(recover, END);
    });
    assert_eq!(only_by_failing, [BuildError::DeadEnd("node".into())]);
    let twice = problems(|g, node, recover| {
        let other = notes(g, "other");
        g.edge(node, END).edge(recover, END).edge(other, END);
        g.on_error(node, recover)
            .on_error(node, other)
            .on_any_error(recover)
            .on_any_error(other);
    });
    let unreached = BuildError::Unreachable("other".into());
    assert_eq!(
        twice,
        [
            unreached,
            BuildError::HandledTwice("node".into()),
            BuildError::TwoForAny
        ]
    );
    let codes: Vec<_> = unused.iter().chain(&twice[1..]).map(BuildError::code).collect();
    assert_eq!(
        codes,
        ["graph::unused_handler", "graph::handled_twice", "graph::two_for_any"]
    );
}

#[test]
fn a_drawing_shows_where_failures_go_and_the_fingerprint_knows() {
    let graph = |handled: bool| {
        let mut g = Graph::<Work>::builder("drawn");
        let a = fails(&mut g, "a");
        let b = fails(&mut g, "b");
        let recover = notes(&mut g, "recover");
        g.edge(START, a)
            .edge(a, b)
            .edge(b, END)
            .edge(recover, END)
            .on_error(a, recover);
        if handled {
            g.on_error(b, recover);
        }
        g.build().unwrap()
    };
    let drawing = graph(true).mermaid();
    for line in [
        "    n2[/\"recover\"/]\n",
        "    n0 -.->|on error| n2\n",
        "    n1 -.->|on error| n2\n",
    ] {
        assert!(drawing.contains(line), "{drawing}");
    }
    assert_ne!(graph(true).fingerprint(), graph(false).fingerprint());
}
