//! A case's graph, built on the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use stepgraph::{
    Ask, Breakpoints, Context, FanOutPolicy, JoinRule, NodeError, Policy, Retry,
    dynamic::{Channels, DynamicBuilder, Goto, JsonState, JsonUpdate, Merge, Reply, TaskInput},
};

use super::{
    body::{Act, To, Written, chosen, collected, destinations, enact},
    case::{self, Does, FailKind, Graph, Node, Object, OnItem, Reducer, Rule, Way},
    run::entry,
};

/// What lives outside the graphs of a case.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) entries: BTreeMap<String, u32>,
    /// The highest step that a node of the outermost graph was entered in.
    pub(super) newest: Option<i64>,
    pub(super) broken: BTreeSet<String>,
}

/// A graph with those inside it, each by its host.
pub(super) struct Built {
    pub(super) graph: stepgraph::Graph<JsonState>,
    pub(super) inner: BTreeMap<String, Built>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AnyQuestion(Value);

impl Ask for AnyQuestion {
    type Answer = Value;
    const NAME: &'static str = "question";
}

pub(super) fn build(spec: &Graph, path: &str, world: &Arc<Mutex<World>>) -> Built {
    let merge = |reducer: &Reducer| match reducer {
        Reducer::Last => Merge::Last,
        Reducer::Append => Merge::Append,
        Reducer::Add => Merge::Add,
        Reducer::Max => Merge::Max,
        Reducer::Union => Merge::Union,
        Reducer::MapMerge => Merge::MapMerge,
        Reducer::Messages => Merge::Messages,
    };
    let channels = spec
        .channels
        .iter()
        .map(|(name, reducer)| (name.clone(), merge(reducer)));
    let mut g = DynamicBuilder::new(spec.name.clone(), Channels::new(channels).unwrap());
    let mut inside = BTreeMap::new();
    for (name, node) in &spec.nodes {
        match &node.does {
            Does::Body(_) => add_body(&mut g, (name, node), spec, path, world),
            Does::Host(inner) => {
                let inner = build(inner, &format!("{path}{name}/"), world);
                g.subgraph(name.clone(), inner.graph.clone());
                inside.insert(name.clone(), inner);
            }
        }
        say_how(&mut g, name, node);
    }
    for way in &spec.ways {
        add_way(&mut g, way, spec);
    }
    let breakpoints = Breakpoints::none()
        .before(spec.before.clone())
        .after(spec.after.clone());
    g.breakpoints(breakpoints);
    Built {
        graph: g.build().unwrap(),
        inner: inside,
    }
}

fn say_how(g: &mut DynamicBuilder, name: &str, node: &Node) {
    if node.deferred {
        g.defer(name);
    }
    if node.attempts > 1 {
        let retry = Retry::attempts(NonZeroU32::new(node.attempts).unwrap()).first_delay(Duration::ZERO);
        g.policy(name, Policy::new().retry(retry));
    }
    match node.on_item.clone() {
        OnItem::Fail => {}
        OnItem::Skip => {
            g.fan_out_policy(name, FanOutPolicy::skip());
        }
        OnItem::Collect(channel) => {
            let collect = move |failure: stepgraph::ItemError| update(&[collected(&channel, failure.index)]);
            g.fan_out_policy(name, FanOutPolicy::collect(collect));
        }
    }
}

fn add_body(g: &mut DynamicBuilder, (name, node): (&str, &Node), spec: &Graph, path: &str, world: &Arc<Mutex<World>>) {
    let task = Arc::new((name.to_owned(), node.clone(), spec.channels.clone(), path.to_owned()));
    let world = Arc::clone(world);
    g.node(name, move |input, ctx| {
        let (task, world) = (Arc::clone(&task), Arc::clone(&world));
        async move {
            let (name, node, channels, path) = &*task;
            run(name, node, channels, path, &world, input, ctx).await
        }
    });
}

async fn run(
    name: &str,
    node: &Node,
    channels: &BTreeMap<String, Reducer>,
    path: &str,
    world: &Mutex<World>,
    input: TaskInput,
    ctx: Context<Value>,
) -> Result<Reply, NodeError> {
    let Does::Body(body) = &node.does else {
        unreachable!("a host has no body")
    };
    let sent = match &input {
        TaskInput::State(_) => None,
        TaskInput::Sent(value) => Some(value),
    };
    let entered = entry(path, name, ctx.step(), ctx.attempt(), sent);
    let broken = {
        let mut world = world.lock().unwrap();
        *world.entries.entry(entered).or_default() += 1;
        if path.is_empty() {
            world.newest = world.newest.max(Some(ctx.step()));
        }
        world.broken.contains(name)
    };
    for _ in 0..body.yields {
        tokio::task::yield_now().await;
    }
    let input: Object = input.to_object().into_iter().collect();
    let mut stopped = None;
    let act = enact(
        (name, body),
        &input,
        ctx.attempt(),
        broken,
        channels,
        |question, payload| match ctx.ask_as(question, AnyQuestion(payload)) {
            Ok(answer) => Some(answer),
            Err(error) => {
                stopped = Some(error);
                None
            }
        },
    );
    match act {
        // Whatever a node returns that has asked, it has asked.
        Act::Asks if body.together => Ok(Reply::default()),
        Act::Asks => Err(stopped.unwrap_or_else(|| NodeError::terminal("nothing was asked"))),
        Act::Fails(FailKind::Terminal) => Err(NodeError::terminal("told to fail")),
        Act::Fails(FailKind::Retryable) => Err(NodeError::retryable("told to fail")),
        Act::Fails(FailKind::Unfit) => Ok(JsonUpdate::new().set("nowhere", Value::Null).into()),
        Act::Gives(written, gotos) => Ok(Reply {
            goto: gone(&destinations(&gotos, &input)),
            ..Reply::from(update(&written))
        }),
    }
}

pub(super) fn update(written: &[Written]) -> JsonUpdate {
    written.iter().fold(JsonUpdate::new(), |update, written| {
        if written.outright {
            update.overwrite(written.channel.clone(), written.value.clone())
        } else {
            update.set(written.channel.clone(), written.value.clone())
        }
    })
}

fn gone(to: &[To]) -> Vec<Goto> {
    let goto = |to: &To| match to {
        To::Node(name) => Goto::Node(name.clone()),
        To::Send(name, value) => Goto::Send(name.clone(), value.clone()),
    };
    to.iter().map(goto).collect()
}

fn add_way(g: &mut DynamicBuilder, way: &Way, spec: &Graph) {
    match way {
        Way::Edge(from, to) => {
            g.edge(from, to);
        }
        Way::Join(rule, from, to) => {
            let rule = match rule {
                Rule::All => JoinRule::all(),
                Rule::Any => JoinRule::any(),
                Rule::Quorum(needed) => JoinRule::quorum(*needed),
            };
            g.join_when(rule, from.clone(), to);
        }
        Way::Branch {
            from,
            cases,
            otherwise,
            labelled,
        } => {
            let (cases, otherwise) = (cases.clone(), otherwise.clone());
            let choose = move |state: &JsonState| {
                let state: Object = state.to_object().into_iter().collect();
                gone(&destinations(chosen(&cases, &otherwise, &state), &state))
            };
            if *labelled {
                let names = spec.nodes.keys();
                g.labelled_branch(from, names.map(|name| (name.clone(), name.clone())), choose);
            } else {
                g.branch(from, choose);
            }
        }
    }
}

/// The values of an input.
pub(super) fn input(written: &[Written]) -> stepgraph::dynamic::JsonInput {
    let values: serde_json::Map<String, Value> = written
        .iter()
        .map(|written| (written.channel.clone(), written.value.clone()))
        .collect();
    values.into()
}

/// Destinations from outside.
pub(super) fn destinations_of(command: &case::Command) -> Vec<Goto> {
    gone(&destinations(&command.goto, &Object::new()))
}
