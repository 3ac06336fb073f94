//! Drawings of a graph for Graphviz, tools and terminals, and what is doubtful about a dynamic one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Append, Command, END, Graph, NodeError, Route, START, State, Warning,
    dynamic::{Channels, DynamicBuilder, Goto, JsonUpdate, Merge, TaskInput},
    from, to,
};

#[derive(State, Clone, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    lines: Vec<String>,
}

#[derive(Clone, Copy, Route)]
enum Ways {
    Again,
    Enough,
}

/// One of everything that can be drawn.
fn graph() -> Graph<Log> {
    let mut g = Graph::<Log>::builder("a \"graph\"");
    let ask = g.node("ask", |_: Arc<Log>| async { Ok(()) });
    let work = g.worker("work", |_: u8, _| async { Ok::<_, NodeError>(()) });
    let route = g.router("route", |_: Arc<Log>| async {
        Ok(Command {
            update: (),
            goto: Ways::Enough,
        })
    });
    let all = g.node("all", |_: Arc<Log>| async { Ok(()) });
    g.edge(START, ask).edge(ask, route).fan_out(ask, work, |_| [1_u8]);
    g.routes(route, |way| match way {
        Ways::Again => to(ask),
        Ways::Enough => to(END),
    });
    g.join([from(ask), from(work)], all).edge(all, END);
    g.build().unwrap()
}

#[test]
fn a_terminal_shows_every_place_in_the_order_in_which_it_is_reached() {
    let drawn = "START
  --> ask
ask
  --> route
  --join--> all
  ==each==> work
route (router)
  ..again..> ask
  ..enough..> END
all
  --> END
work (worker)
  --join--> all
";
    assert_eq!(graph().ascii(), drawn);
}

#[test]
fn graphviz_is_told_names_shapes_and_labels_in_its_own_language() {
    let drawn = r#"digraph "a \"graph\"" {
    START [shape=oval];
    n0 [label="all", shape=box];
    n1 [label="ask", shape=box];
    n2 [label="route", shape=diamond];
    n3 [label="work", shape=box3d];
    END [shape=oval];
    START -> n1;
    n1 -> n2;
    n0 -> END;
    n1 -> n0 [label="join"];
    n3 -> n0 [label="join"];
    n2 -> n1 [label="again", style=dotted];
    n2 -> END [label="enough", style=dotted];
    n1 -> n3 [label="each", style=bold];
}
"#;
    assert_eq!(graph().dot(), drawn);
}

#[test]
fn a_tool_is_told_nodes_edges_and_joins_by_name() {
    let graph = graph();
    let drawn = graph.to_json();
    assert_eq!(drawn["graph"], "a \"graph\"");
    assert_eq!(drawn["fingerprint"], graph.fingerprint().to_string());
    assert_eq!(
        drawn["nodes"],
        json!([
            {"name": "all", "kind": "node"},
            {"name": "ask", "kind": "node"},
            {"name": "route", "kind": "router"},
            {"name": "work", "kind": "worker"},
        ])
    );
    let edges = drawn["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 8);
    assert!(edges.contains(&json!({"from": "route", "to": "ask", "kind": "route", "label": "again"})));
    assert!(edges.contains(&json!({"from": "ask", "to": "work", "kind": "fan_out", "label": null})));
    assert_eq!(
        drawn["joins"],
        json!([{"sources": ["ask", "work"], "targets": ["all"], "rule": null}])
    );
}

#[test]
fn a_typed_graph_that_was_built_has_no_warnings() {
    assert_eq!(graph().warnings(), []);
}

fn dynamic(open: bool) -> DynamicBuilder {
    let mut g = DynamicBuilder::new("loose", Channels::new([("log", Merge::Append)]).unwrap());
    for name in ["a", "b", "c", "far", "loop", "z"] {
        g.node(name, |_: TaskInput, _| async { Ok(JsonUpdate::new().into()) });
    }
    g.edge("START", "a")
        .edge("a", "b")
        .edge("START", "loop")
        .edge("loop", "loop");
    g.edge("far", "END")
        .edge("z", "END")
        .join(["a", "far"], "c")
        .edge("c", "END");
    if open {
        g.branch("a", |_| vec![Goto::Node("far".to_owned())]);
    }
    g
}

#[test]
fn a_dynamic_graph_warns_of_what_a_typed_one_would_refuse() {
    let graph = dynamic(false).build().unwrap();
    let told: Vec<_> = graph
        .warnings()
        .iter()
        .map(|warning| (warning.code(), warning.to_string()))
        .collect();
    let codes: Vec<_> = graph.warnings().iter().map(Warning::code).collect();
    let expected = [
        "graph::dead_end",
        "graph::unreachable",
        "graph::no_exit",
        "graph::unreachable",
        "graph::impossible_join",
    ];
    assert_eq!(codes, expected, "{told:?}");
    let of = [
        "`b` leads nowhere",
        "`far` cannot be reached",
        "`loop` is on a cycle",
        "`z` cannot be reached",
        "into `c`",
    ];
    for ((_, text), of) in told.iter().zip(of) {
        assert!(text.contains(of), "{text}");
    }
}

#[test]
fn a_branch_that_may_lead_anywhere_leaves_only_dead_ends_to_be_told() {
    let graph = dynamic(true).build().unwrap();
    let codes: Vec<_> = graph.warnings().iter().map(Warning::code).collect();
    assert_eq!(codes, ["graph::dead_end"]);
}

#[test]
fn a_long_cycle_without_a_way_out_is_told_of_each_of_its_nodes() {
    let mut g = Graph::<Log>::builder("ring");
    let nodes: Vec<_> = (0..1000)
        .map(|at| g.node(format!("n{at:04}"), |_: Arc<Log>| async { Ok(()) }))
        .collect();
    g.edge(START, nodes[0]);
    for pair in nodes.windows(2) {
        g.edge(pair[0], pair[1]);
    }
    g.edge(nodes[999], nodes[0]);
    let errors = g.build().unwrap_err();
    assert_eq!(errors.errors().len(), 1000);
    assert!(errors.errors().iter().all(|error| error.code() == "graph::no_exit"));
}
