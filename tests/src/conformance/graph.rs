//! The graphs of a case, built on this engine.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use stepgraph::{
    Breakpoints, BuildErrors, Graph, Policy, Retry,
    dynamic::{Channels, Compat, DynamicBuilder, Goto, JsonState, Merge},
};

use super::{
    body::destinations,
    body::{self, Counters, Node},
    expr::{Scope, truth},
};

/// Builds the graph `name` of a case, with the graphs it uses.
pub(super) fn build(
    name: &str,
    case: &Value,
    counters: &Arc<Mutex<Counters>>,
) -> Result<Graph<JsonState>, BuildErrors> {
    let spec = &case["graphs"][name];
    let mut g = DynamicBuilder::with_compat(name, channels(spec), Compat::Recorded);
    for node in list(&spec["nodes"]) {
        add_node(&mut g, name, node, case, counters)?;
    }
    for edge in list(&spec["edges"]) {
        add_edge(&mut g, edge);
    }
    g.breakpoints(
        Breakpoints::none()
            .before(names(&spec["interrupt_before"]))
            .after(names(&spec["interrupt_after"])),
    );
    g.build()
}

pub(super) fn channels(spec: &Value) -> Channels {
    let merge = |kind: &Value| match kind.as_str().unwrap_or_default() {
        "last" => Merge::Last,
        "append" => Merge::Append,
        "add" => Merge::Add,
        "max" => Merge::Max,
        "union" => Merge::Union,
        "merge" => Merge::MapMerge,
        "messages" => Merge::Messages,
        other => panic!("unknown reducer `{other}`"),
    };
    let declared = spec["channels"].as_object().into_iter().flatten();
    let mut channels = Channels::new(declared.map(|(name, kind)| (name.clone(), merge(kind)))).unwrap();
    if spec["input"].is_array() {
        channels = channels.inputs(names(&spec["input"])).unwrap();
    }
    if spec["output"].is_array() {
        channels = channels.outputs(names(&spec["output"])).unwrap();
    }
    channels
}

fn add_node(
    g: &mut DynamicBuilder,
    graph: &str,
    spec: &Value,
    case: &Value,
    counters: &Arc<Mutex<Counters>>,
) -> Result<(), BuildErrors> {
    let name = spec["name"].as_str().unwrap_or_default().to_owned();
    if let Some(inner) = spec["subgraph"].as_str() {
        g.subgraph(name.clone(), build(inner, case, counters)?);
    } else {
        let mut callable = HashMap::new();
        for inner in called(&spec["ops"]) {
            callable.insert(inner.clone(), build(&inner, case, counters)?);
        }
        let retried = spec["retry"]["on"].is_array().then(|| names(&spec["retry"]["on"]));
        let path = if graph == "main" {
            name.clone()
        } else {
            format!("{graph}.{name}")
        };
        let node = Arc::new(Node {
            path,
            name: name.clone(),
            ops: list(&spec["ops"]).to_vec(),
            retried,
            counters: Arc::clone(counters),
            callable,
        });
        g.node(name.clone(), move |input, ctx| body::run(Arc::clone(&node), input, ctx));
    }
    if spec["defer"] == true {
        g.defer(name.clone());
    }
    if let Some(attempts) = spec["retry"]["max_attempts"].as_u64() {
        let attempts = NonZeroU32::new(u32::try_from(attempts).unwrap()).unwrap();
        let retry = Retry::attempts(attempts).first_delay(Duration::ZERO);
        g.policy(name, Policy::new().retry(retry));
    }
    Ok(())
}

/// The graphs that ops call, at any depth.
pub(super) fn called(ops: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for op in list(ops) {
        if op["op"] == "call" {
            found.extend(op["graph"].as_str().map(str::to_owned));
        }
        found.extend(called(&op["then"]));
        found.extend(called(&op["else"]));
    }
    found
}

fn add_edge(g: &mut DynamicBuilder, edge: &Value) {
    if let Some([from, to]) = edge.as_array().map(Vec::as_slice) {
        g.edge(from.as_str().unwrap_or_default(), to.as_str().unwrap_or_default());
        return;
    }
    if edge["join"].is_array() {
        g.join(names(&edge["join"]), edge["to"].as_str().unwrap_or_default());
        return;
    }
    let from = edge["from"].as_str().unwrap_or_default();
    let cases = edge.clone();
    let choose = move |state: &JsonState| -> Vec<Goto> {
        let (channels, variables) = (state.to_object(), BTreeMap::new());
        let scope = Scope {
            channels: &channels,
            variables: &variables,
        };
        let found = list(&cases["cases"])
            .iter()
            .find(|case| truth(&scope.eval(&case["when"])));
        let to = found.map_or(&cases["else"], |case| &case["to"]);
        destinations(to, &channels, &variables)
    };
    match edge["map"].as_object() {
        Some(map) => {
            let ends = map
                .iter()
                .map(|(label, to)| (label.clone(), to.as_str().unwrap_or_default().to_owned()));
            g.labelled_branch(from, ends, choose);
        }
        None => {
            g.branch(from, choose);
        }
    }
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn names(value: &Value) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}
