//! For tools: Graphviz and JSON.

use serde_json::{Value, json as value};

use super::{Kind, Topology, Way, id, line};

/// A drawing in the language of Graphviz.
pub(in crate::graph) fn dot(topology: &Topology) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("digraph {} {{", quoted(&topology.graph)));
    out.push_str("    START [shape=oval];\n");
    for (at, name) in topology.names().iter().enumerate() {
        let shape = match topology.kind(at) {
            Kind::Node => "box",
            Kind::Router | Kind::Also => "diamond",
            Kind::Worker => "box3d",
            Kind::Handler | Kind::HandlerRouter => "parallelogram",
            Kind::Open => "ellipse",
        };
        line(
            &mut out,
            format_args!("    n{at} [label={}, shape={shape}];", quoted(name)),
        );
    }
    out.push_str("    END [shape=oval];\n");
    for (from, to, way) in &topology.ways {
        let look = match way {
            Way::Always => String::new(),
            Way::Join => " [label=\"join\"]".to_owned(),
            Way::JoinWhen(rule) => format!(" [label={}]", quoted(rule)),
            Way::Route(label) => format!(" [label={}, style=dotted]", quoted(label)),
            Way::OnError => " [label=\"on error\", style=dashed]".to_owned(),
            Way::FanOut => " [label=\"each\", style=bold]".to_owned(),
        };
        line(&mut out, format_args!("    {} -> {}{look};", id(*from), id(*to)));
    }
    out.push_str("}\n");
    out
}

/// Nodes by name, ways and joins as they were declared.
pub(in crate::graph) fn json(topology: &Topology) -> Value {
    let node = |(at, name)| {
        let kind = match topology.kind(at) {
            Kind::Node => "node",
            Kind::Router | Kind::Also => "router",
            Kind::Worker => "worker",
            Kind::Handler => "handler",
            Kind::HandlerRouter => "handler_router",
            Kind::Open => "open",
        };
        value!({ "name": name, "kind": kind })
    };
    let edges = topology.ways.iter().map(|(from, to, way)| {
        let (kind, label) = match way {
            Way::Always => ("edge", None),
            Way::Join => ("join", None),
            Way::JoinWhen(rule) => ("join", Some(rule)),
            Way::Route(label) => ("route", Some(label)),
            Way::OnError => ("on_error", None),
            Way::FanOut => ("fan_out", None),
        };
        value!({ "from": topology.label(*from), "to": topology.label(*to), "kind": kind, "label": label })
    });
    let names = |nodes: &[usize]| {
        nodes
            .iter()
            .map(|node| topology.name(*node).clone())
            .collect::<Vec<_>>()
    };
    let joins = topology
        .joins
        .iter()
        .map(|join| value!({ "sources": names(&join.sources), "targets": names(&join.targets), "rule": join.rule }));
    value!({
        "graph": topology.graph,
        "fingerprint": topology.fingerprint.to_string(),
        "nodes": topology.names().iter().enumerate().map(node).collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
        "joins": joins.collect::<Vec<_>>(),
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
