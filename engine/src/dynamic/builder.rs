//! Declares a graph whose channels, nodes and ways are known only at run time.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use serde_json::Value;

use super::{Channels, Compat, Goto, JsonInput, JsonState, JsonUpdate, Leave, Reply, TaskInput, handlers::Handling};
use crate::{
    graph::{
        At, Branch, BuildError, BuildErrors, Call, FanOutPolicy, Graph, GraphBuilder, JoinRule, Kind, Output, Payload,
        PayloadCodec, Rare, Running, Slot, UnknownTarget, {self as core},
    },
    node::{Context, NodeError, Policy},
    run::{Breakpoints, Outcome, Run, RunEnd, SubgraphMode, enter},
};

/// Declares a dynamic graph. Names may be used before their nodes are declared; `START` and `END` are the ends.
///
/// ```
/// use serde_json::json;
/// use stepgraph::dynamic::{Channels, DynamicBuilder, JsonUpdate, Merge, TaskInput};
///
/// let channels = Channels::new([("n", Merge::Last), ("log", Merge::Append)])?;
/// let mut g = DynamicBuilder::new("count", channels);
/// g.node("add", |input: TaskInput, _ctx| async move {
///     let n = input.get("n").and_then(|n| n.as_i64()).unwrap_or(0);
///     Ok(JsonUpdate::new().set("n", json!(n + 1)).set("log", json!(["added"])).into())
/// });
/// g.edge("START", "add").edge("add", "END");
/// let graph = g.build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a graph is made by `build`"]
pub struct DynamicBuilder {
    pub(super) inner: GraphBuilder<JsonState>,
    channels: Channels,
    pub(super) slots: BTreeMap<String, Slot>,
    policies: Vec<(String, Policy)>,
    fan_out_policies: Vec<(String, FanOutPolicy<JsonState>)>,
    deferred: Vec<String>,
    renamed: Vec<(String, String)>,
    writes: Vec<(String, Vec<String>)>,
    ways: Vec<Way>,
    pub(super) handling: Handling,
    pub(super) problems: Vec<BuildError>,
}

/// A way, by names.
enum Way {
    Edge(String, String),
    Join(JoinRule, Vec<String>, String),
    Branch(String, Vec<(String, String)>, ChooseGotos),
}

type ChooseGotos = Box<dyn Fn(&JsonState) -> Vec<Goto> + Send + Sync>;

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Edge(from, to) => write!(f, "{from} -> {to}"),
            Self::Join(_, all, to) => write!(f, "{all:?} -> {to}"),
            Self::Branch(from, ends, _) => write!(f, "{from} -> one of {ends:?}"),
        }
    }
}

impl DynamicBuilder {
    /// Begins a graph over these channels.
    pub fn new(name: impl Into<String>, channels: Channels) -> Self {
        Self {
            inner: GraphBuilder::with_shape(name.into(), channels.clone()),
            channels,
            slots: BTreeMap::new(),
            policies: Vec::new(),
            fan_out_policies: Vec::new(),
            deferred: Vec::new(),
            renamed: Vec::new(),
            writes: Vec::new(),
            ways: Vec::new(),
            handling: Handling::default(),
            problems: Vec::new(),
        }
    }

    /// The same, following the semantics of `compat` where they differ.
    pub fn with_compat(name: impl Into<String>, channels: Channels, compat: Compat) -> Self {
        let mut builder = Self::new(name, channels);
        builder.inner.compat = compat;
        builder
    }

    /// Adds a node.
    pub fn node<F, Fut>(&mut self, name: impl Into<String>, node: F) -> &mut Self
    where
        F: Fn(TaskInput, Context<Value>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, NodeError>> + Send + 'static,
    {
        let output = self.output();
        let call: Call<JsonState> = Box::new(move |state, payload, ctx| {
            let running = node(task_input(state, payload), ctx.make());
            let output = output.clone();
            Running::of(async move { output.of(running.await?) })
        });
        self.push(name.into(), Kind::Open, call)
    }

    /// Adds a graph as a node. It is begun with the channels that both have, and writes those that both have.
    pub fn subgraph(&mut self, name: impl Into<String>, graph: Graph<JsonState>) -> &mut Self {
        self.subgraph_as(SubgraphMode::Fresh, name, graph)
    }

    /// The same, with a say in what becomes of the inner graph's state.
    pub fn subgraph_as(&mut self, mode: SubgraphMode, name: impl Into<String>, graph: Graph<JsonState>) -> &mut Self {
        let channels = self.channels.clone();
        let call: Call<JsonState> = Box::new(move |state, payload, ctx| {
            let (graph, channels, ctx) = (graph.clone(), channels.clone(), ctx.make());
            let given = task_input(state, payload).to_object();
            Running::of(async move {
                let input = graph.parts.shape.known_input(JsonInput::from(given));
                let inner = match enter(&graph, &ctx, "", input, mode).await? {
                    RunEnd::Outcome(Outcome::Done(state) | Outcome::Stalled { state, .. }) => state,
                    RunEnd::Left(left) => return Err(NodeError::left(*left.leave)),
                    RunEnd::Outcome(_) => return Err(NodeError::terminal("the inner graph has not come to its end")),
                };
                let update = JsonUpdate::from(inner.output());
                Ok(Output::of(channels.known(update)))
            })
        });
        self.push(name.into(), Kind::Open, call)
    }

    /// Says how a node is run.
    pub fn policy(&mut self, node: impl Into<String>, policy: Policy) -> &mut Self {
        self.policies.push((node.into(), policy));
        self
    }

    /// Says what becomes of what is sent to a node when it fails for good.
    pub fn fan_out_policy(&mut self, node: impl Into<String>, policy: FanOutPolicy<JsonState>) -> &mut Self {
        self.fan_out_policies.push((node.into(), policy));
        self
    }

    /// Lets a node wait, once triggered, until nothing else is left to run.
    pub fn defer(&mut self, node: impl Into<String>) -> &mut Self {
        self.deferred.push(node.into());
        self
    }

    /// Says that a node had another name before, so that threads which wait there under it go on here.
    pub fn renamed(&mut self, old: impl Into<String>, node: impl Into<String>) -> &mut Self {
        self.renamed.push((old.into(), node.into()));
        self
    }

    /// Says which channels a node writes: these and no others, as [`GraphBuilder::writes`] does.
    pub fn writes<F: Into<String>>(
        &mut self,
        node: impl Into<String>,
        channels: impl IntoIterator<Item = F>,
    ) -> &mut Self {
        let channels = channels.into_iter().map(Into::into).collect();
        self.writes.push((node.into(), channels));
        self
    }

    /// Leads from one place to another, always.
    pub fn edge(&mut self, from: impl Into<String>, to: impl Into<String>) -> &mut Self {
        self.ways.push(Way::Edge(from.into(), to.into()));
        self
    }

    /// Leads on once every one of `all` has finished.
    pub fn join<N: Into<String>>(&mut self, all: impl IntoIterator<Item = N>, to: impl Into<String>) -> &mut Self {
        self.join_when(JoinRule::all(), all, to)
    }

    /// Leads on once enough of `all` have finished, or time is up.
    pub fn join_when<N: Into<String>>(
        &mut self,
        rule: JoinRule,
        all: impl IntoIterator<Item = N>,
        to: impl Into<String>,
    ) -> &mut Self {
        let all = all.into_iter().map(Into::into).collect();
        self.ways.push(Way::Join(rule, all, to.into()));
        self
    }

    /// Leads on where `choose` says, which sees the state at the step's start plus the task's own update.
    pub fn branch(
        &mut self,
        from: impl Into<String>,
        choose: impl Fn(&JsonState) -> Vec<Goto> + Send + Sync + 'static,
    ) -> &mut Self {
        self.ways.push(Way::Branch(from.into(), Vec::new(), Box::new(choose)));
        self
    }

    /// The same by labels: `choose` names labels of `ends`, each with the node it stands for. A label that is not among
    /// them fails the run.
    pub fn labelled_branch<L: Into<String>, N: Into<String>>(
        &mut self,
        from: impl Into<String>,
        ends: impl IntoIterator<Item = (L, N)>,
        choose: impl Fn(&JsonState) -> Vec<Goto> + Send + Sync + 'static,
    ) -> &mut Self {
        let ends = ends.into_iter().map(|(label, to)| (label.into(), to.into())).collect();
        self.ways.push(Way::Branch(from.into(), ends, Box::new(choose)));
        self
    }

    /// Stops every run here, unless it says otherwise.
    pub fn breakpoints(&mut self, breakpoints: Breakpoints) -> &mut Self {
        self.inner.breakpoints = breakpoints;
        self
    }

    /// Checks the names and makes the graph.
    ///
    /// # Errors
    /// All problems at once, each with a code and its remedy.
    pub fn build(mut self) -> Result<Graph<JsonState>, BuildErrors> {
        for way in std::mem::take(&mut self.ways) {
            self.wire(way);
        }
        self.wire_handling();
        for (name, policy) in std::mem::take(&mut self.policies) {
            match self.slots.get(&name) {
                Some(slot) => self.inner.set_policy(*slot, policy),
                None => self.problems.push(BuildError::UnknownNode(name)),
            }
        }
        for (name, policy) in std::mem::take(&mut self.fan_out_policies) {
            match self.slots.get(&name) {
                Some(slot) => self.inner.set_fan_out_policy(*slot, policy),
                None => self.problems.push(BuildError::UnknownNode(name)),
            }
        }
        for name in std::mem::take(&mut self.deferred) {
            match self.slots.get(&name) {
                Some(slot) => self.inner.declared.defer(slot.index),
                None => self.problems.push(BuildError::UnknownNode(name)),
            }
        }
        for (old, name) in std::mem::take(&mut self.renamed) {
            match self.slots.get(&name) {
                Some(slot) => self.inner.declared.renamed.push((old.into(), slot.index)),
                None => self.problems.push(BuildError::UnknownNode(name)),
            }
        }
        for (name, channels) in std::mem::take(&mut self.writes) {
            match self.slots.get(&name) {
                Some(slot) => self.inner.set_writes(*slot, channels),
                None => self.problems.push(BuildError::UnknownNode(name)),
            }
        }
        let breakpoints = self.inner.breakpoints.names();
        let unknown = breakpoints.filter(|name| !self.slots.contains_key(name.as_ref()));
        let unknown: Vec<_> = unknown
            .map(|name| BuildError::UnknownBreakpoint(name.to_string()))
            .collect();
        self.problems.extend(unknown);
        self.inner.build_open(self.problems)
    }

    /// How what the nodes give back becomes outputs.
    pub(super) fn output(&self) -> Outputs {
        Outputs {
            channels: self.channels.clone(),
            compat: self.inner.compat,
        }
    }

    pub(super) fn push(&mut self, name: String, kind: Kind, call: Call<JsonState>) -> &mut Self {
        if self.slots.contains_key(&name) {
            self.problems.push(BuildError::DuplicateNode(name.into()));
            return self;
        }
        let slot = self
            .inner
            .push(name.clone().into(), kind, call, Some(PayloadCodec::of::<Value>()));
        let (channels, compat) = (self.channels.clone(), self.inner.compat);
        self.inner
            .adopt(slot, Box::new(move |leave| adopted(&channels, compat, leave)));
        self.slots.insert(name, slot);
        self
    }

    fn wire(&mut self, way: Way) {
        match way {
            Way::Edge(from, to) => {
                if let (Some(from), Some(to)) = (self.source(&from), self.target(&to)) {
                    self.inner.declared.edge(from, to);
                }
            }
            Way::Join(rule, all, to) => {
                let all: Vec<_> = all.iter().filter_map(|name| self.source(name)).collect();
                if let Some(to) = self.target(&to) {
                    self.inner.declared.join(rule, all, vec![to]);
                }
            }
            Way::Branch(from, ends, choose) => {
                let from = self.source(&from);
                let table = ends
                    .iter()
                    .filter_map(|(label, to)| Some((label.clone().into(), vec![self.target(to)?])));
                let table = table.collect();
                if let Some(from) = from {
                    self.inner.declared.branch(from, table);
                    self.inner
                        .branches
                        .push(Branch::Named(Box::new(move |state| named(&ends, choose(state)))));
                }
            }
        }
    }

    fn source(&mut self, name: &str) -> Option<At> {
        if name == "START" {
            return Some(At::Start);
        }
        let found = self.slots.get(name).copied().map(At::Node);
        if found.is_none() {
            self.problems.push(BuildError::UnknownSource(name.to_owned()));
        }
        found
    }

    fn target(&mut self, name: &str) -> Option<At> {
        if name == "END" {
            return Some(At::End);
        }
        let found = self.slots.get(name).copied().map(At::Node);
        if found.is_none() {
            self.problems.push(BuildError::UnknownTarget(name.to_owned()));
        }
        found
    }
}

/// Destinations by name, after labels were looked up if there are any.
fn named(ends: &[(String, String)], chosen: Vec<Goto>) -> Result<Vec<core::Goto>, UnknownTarget> {
    let meant = |goto: Goto| match goto {
        Goto::Node(label) if !ends.is_empty() => {
            let end = ends.iter().find(|(known, _)| *known == label);
            end.map(|(_, to)| Goto::Node(to.clone())).ok_or(UnknownTarget(label))
        }
        other => Ok(other),
    };
    let chosen = chosen.into_iter().map(meant).collect::<Result<_, _>>()?;
    Ok(gotos(chosen))
}

fn gotos(gotos: Vec<Goto>) -> Vec<core::Goto> {
    let goto = |goto| match goto {
        Goto::Node(to) if to == "END" => None,
        Goto::Node(to) => Some(core::Goto {
            to: to.into(),
            payload: None,
        }),
        Goto::Send(to, value) => Some(core::Goto {
            to: to.into(),
            payload: Some(Arc::new(value) as Payload),
        }),
        Goto::End => None,
    };
    gotos.into_iter().filter_map(goto).collect()
}

pub(super) fn task_input(state: &Arc<JsonState>, payload: Option<&Payload>) -> TaskInput {
    let sent = payload.and_then(|payload| payload.downcast_ref::<Value>());
    sent.map_or_else(
        || TaskInput::State(Arc::clone(state)),
        |value| TaskInput::Sent(value.clone()),
    )
}

/// How a node's reply becomes its task's output.
#[derive(Clone)]
pub(super) struct Outputs {
    channels: Channels,
    compat: Compat,
}

impl Outputs {
    pub(super) fn of(&self, reply: Reply) -> Result<Output<JsonState>, NodeError> {
        let update = checked(&self.channels, self.compat, reply.update)?;
        let rare = Rare {
            goto: gotos(reply.goto),
            leave: reply.leave.map(left).transpose()?,
            ..Rare::default()
        };
        Ok(Output::with(update, rare))
    }
}

/// An update as the channels take it.
fn checked(channels: &Channels, compat: Compat, update: JsonUpdate) -> Result<JsonUpdate, NodeError> {
    match compat {
        Compat::Strict => {
            channels.check(&update).map_err(NodeError::terminal)?;
            Ok(update)
        }
        Compat::Recorded => Ok(channels.known(update)),
    }
}

fn left(leave: Leave) -> Result<Box<core::Leave>, NodeError> {
    let goto = leave.goto.into_iter().filter_map(|goto| match goto {
        Goto::Node(to) => Some((to, None)),
        Goto::Send(to, value) => Some((to, Some(value))),
        Goto::End => None,
    });
    Ok(Box::new(core::Leave {
        update: serde_json::to_value(leave.update).map_err(NodeError::terminal)?,
        goto: goto.collect(),
    }))
}

/// What a graph inside a node has left to this one, as the node's output.
fn adopted(channels: &Channels, compat: Compat, leave: core::Leave) -> Result<Output<JsonState>, NodeError> {
    let update = serde_json::from_value(leave.update).map_err(NodeError::terminal)?;
    let goto = leave.goto.into_iter().map(|(to, value)| match value {
        None => Goto::Node(to),
        Some(value) => Goto::Send(to, value),
    });
    let rare = Rare {
        goto: gotos(goto.collect()),
        ..Rare::default()
    };
    Ok(Output::with(checked(channels, compat, update)?, rare))
}

impl Run<JsonState> {
    /// Runs one more task of a node when going on, fed with this instead of the state: for a run that is resumed.
    pub fn send(mut self, node: impl Into<String>, payload: Value) -> Self {
        let command = self.options_mut().command.get_or_insert_default();
        command.goto.push(core::Goto {
            to: node.into().into(),
            payload: Some(Arc::new(payload) as Payload),
        });
        self
    }
}
