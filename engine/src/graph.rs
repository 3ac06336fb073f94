//! Graphs: declared by a builder, checked whole, then run any number of times.

mod check;
mod draw;
mod id;
mod topology;

use std::{
    any::{Any, TypeId, type_name},
    borrow::Cow,
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::{
    check::{BuildError, BuildErrors},
    id::{AnyNode, END, EdgeFrom, EdgeTo, End, NodeId, RouterId, START, Source, Start, Targets, WorkerId, from, to},
};
pub(crate) use self::{
    id::{At, Slot},
    topology::{Declared, Join, Kind, Topology},
};
use crate::{
    checkpoint::Checkpointer,
    clock::{Clock, SystemClock},
    dynamic::Compat,
    node::{Context, IntoNode, NodeError, Policy},
    route::{Command, Route},
    run::{Breakpoints, Busy, Subgraph, decode_record, encode_record},
    state::{FromState, State, StateError},
};

/// What a task is fed with beside the state: the payload of a fan-out.
pub(crate) type Payload = Arc<dyn Any + Send + Sync>;

/// What a task gives back.
pub(crate) struct Output<S: State> {
    pub(crate) update: S::Update,
    /// Position of the route a router has chosen.
    pub(crate) route: Option<usize>,
    /// Where a node of a dynamic graph goes besides its edges.
    pub(crate) goto: Vec<Goto>,
    /// Set when the node ends its whole graph, in favour of the graph around it.
    pub(crate) leave: Option<Box<Leave>>,
}

impl<S: State> Output<S> {
    pub(crate) const fn of(update: S::Update) -> Self {
        Self {
            update,
            route: None,
            goto: Vec::new(),
            leave: None,
        }
    }
}

/// Where to go on, by name; with a payload, one more task that is fed with it.
#[derive(Clone)]
pub(crate) struct Goto {
    pub(crate) to: Cow<'static, str>,
    pub(crate) payload: Option<Payload>,
}

/// What a node that ends its graph leaves to the graph around it: writes and destinations there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leave {
    pub(crate) update: Value,
    pub(crate) goto: Vec<(String, Option<Value>)>,
}

pub(crate) type OutputFuture<S> = Pin<Box<dyn Future<Output = Result<Output<S>, NodeError>> + Send>>;
pub(crate) type Call<S> = Box<dyn Fn(&Arc<S>, Option<&Payload>, Context<<S as State>::Event>) -> OutputFuture<S> + Send + Sync>;
type Choose<S> = Box<dyn Fn(&S) -> usize + Send + Sync>;
type Name<S> = Box<dyn Fn(&S) -> Result<Vec<Goto>, UnknownTarget> + Send + Sync>;
type Spread<S> = Box<dyn Fn(&S) -> Vec<Payload> + Send + Sync>;

/// How a worker's payload is written down and read back.
pub(crate) struct PayloadCodec {
    pub(crate) encode: fn(&Payload) -> Result<Arc<[u8]>, StateError>,
    pub(crate) decode: fn(&[u8]) -> Result<Payload, StateError>,
    /// As JSON, for whoever listens to the run.
    pub(crate) show: fn(&Payload) -> Result<Value, StateError>,
}

impl PayloadCodec {
    pub(crate) fn of<I: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Self {
        Self {
            encode: encode_payload::<I>,
            decode: decode_payload::<I>,
            show: show_payload::<I>,
        }
    }
}

/// One node, ready to run.
pub(crate) struct NodeSpec<S: State> {
    pub(crate) call: Call<S>,
    pub(crate) policy: Policy,
    pub(crate) payload: Option<PayloadCodec>,
    /// What becomes of what a graph inside has left to this one, if that means anything here.
    pub(crate) adopt: Option<Adopt<S>>,
}

pub(crate) type Adopt<S> = Box<dyn Fn(Leave) -> Result<Output<S>, NodeError> + Send + Sync>;

/// A branch: the closure that says where it leads.
pub(crate) enum Branch<S> {
    /// To a position in the topology's table of targets.
    Routes(Choose<S>),
    /// To places by name.
    Named(Name<S>),
}

/// A destination that the graph does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownTarget(pub(crate) String);

/// A fan-out: the closure that makes the payloads.
pub(crate) struct FanOut<S> {
    pub(crate) spread: Spread<S>,
}

/// A graph that has passed every check. Cheap to clone; one graph serves every run.
pub struct Graph<S: State> {
    pub(crate) parts: Arc<Parts<S>>,
    pub(crate) store: Option<Arc<dyn Checkpointer>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) busy: Arc<Busy>,
}

/// What never changes after the build.
pub(crate) struct Parts<S: State> {
    pub(crate) shape: S::Shape,
    pub(crate) topology: Arc<Topology>,
    pub(crate) nodes: Vec<NodeSpec<S>>,
    pub(crate) branches: Vec<Branch<S>>,
    pub(crate) fan_outs: Vec<FanOut<S>>,
    pub(crate) requires: Vec<(TypeId, &'static str)>,
    pub(crate) compat: Compat,
    pub(crate) breakpoints: Breakpoints,
}

impl<S: State> Graph<S> {
    /// Begins a graph. Its name stands in checkpoints, logs and drawings, and must not change while threads of it live.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> GraphBuilder<S>
    where
        S::Shape: Default,
    {
        GraphBuilder::with_shape(name, S::Shape::default())
    }

    /// Keeps checkpoints of every run in `store`. Without one, nothing is kept and no question can be asked.
    #[must_use]
    pub fn checkpointer(self, store: impl Checkpointer) -> Self {
        self.shared_checkpointer(Arc::new(store))
    }

    /// The same with a store that others use as well.
    #[must_use]
    pub fn shared_checkpointer(mut self, store: Arc<dyn Checkpointer>) -> Self {
        self.store = Some(store);
        self
    }

    /// Takes time and ids from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The graph's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.topology.graph
    }

    /// Hash of nodes, edges, fields and reducers; a checkpoint remembers it.
    #[must_use]
    pub fn fingerprint(&self) -> uuid::Uuid {
        self.parts.topology.fingerprint
    }

    /// A drawing of the graph as a Mermaid flow chart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        draw::mermaid(&self.parts.topology)
    }

    /// The graph as a node of another: `I` starts it, `O` is read from its last state.
    #[must_use]
    pub fn as_node<I: Into<S::Input>, O: FromState<S>>(self) -> Subgraph<S, I, O> {
        Subgraph::new(self)
    }
}

impl<S: State> Clone for Graph<S> {
    fn clone(&self) -> Self {
        Self {
            parts: Arc::clone(&self.parts),
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            busy: Arc::clone(&self.busy),
        }
    }
}

impl<S: State> fmt::Debug for Graph<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("name", &self.name())
            .field("nodes", &self.parts.topology.names())
            .finish_non_exhaustive()
    }
}

/// Declares a graph: nodes first, then the edges between them.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use stepgraph::{Graph, START, END, State};
///
/// #[derive(State, Clone, Serialize, Deserialize)]
/// struct Count { #[state(input)] n: u64 }
///
/// let mut g = Graph::<Count>::builder("count");
/// let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
/// g.edge(START, add).edge(add, END);
/// let graph = g.build()?;
/// # Ok::<(), stepgraph::BuildErrors>(())
/// ```
#[must_use = "a graph is made by `build`"]
pub struct GraphBuilder<S: State> {
    tag: u32,
    shape: S::Shape,
    pub(crate) declared: Declared,
    nodes: Vec<NodeSpec<S>>,
    pub(crate) branches: Vec<Branch<S>>,
    fan_outs: Vec<FanOut<S>>,
    requires: Vec<(TypeId, &'static str)>,
    pub(crate) compat: Compat,
    pub(crate) breakpoints: Breakpoints,
}

/// Numbers builders, so that an id of one is not taken by another.
static BUILDERS: AtomicU32 = AtomicU32::new(0);

impl<S: State> GraphBuilder<S> {
    /// Begins a graph whose fields are known only now.
    pub fn with_shape(name: impl Into<Cow<'static, str>>, shape: S::Shape) -> Self {
        Self {
            tag: BUILDERS.fetch_add(1, Ordering::Relaxed),
            shape,
            declared: Declared::named(name.into()),
            nodes: Vec::new(),
            branches: Vec::new(),
            fan_outs: Vec::new(),
            requires: Vec::new(),
            compat: Compat::Strict,
            breakpoints: Breakpoints::default(),
        }
    }

    /// Adds a node that reads the state and gives an update.
    pub fn node<M, N>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> NodeId<S>
    where
        N: IntoNode<S, M>,
        N::Input: FromState<S>,
        N::Output: Into<S::Update>,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let running = N::enter(&node, N::Input::from_state(state), ctx);
            Box::pin(async move { Ok(Output::of(running.await?.into())) })
        });
        NodeId(self.push(name.into(), Kind::Node, call, None), PhantomData)
    }

    /// Adds a node that also chooses where to go on, among routes of its own.
    #[must_use = "a router needs `routes`"]
    pub fn router<M, N, U, R>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> RouterId<S, R>
    where
        N: IntoNode<S, M, Output = Command<U, R>>,
        N::Input: FromState<S>,
        U: Into<S::Update> + Send + 'static,
        R: Route,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let running = N::enter(&node, N::Input::from_state(state), ctx);
            Box::pin(async move {
                let Command { update, goto } = running.await?;
                Ok(Output {
                    route: Some(goto.index()),
                    ..Output::of(update.into())
                })
            })
        });
        RouterId(self.push(name.into(), Kind::Router, call, None), PhantomData)
    }

    /// Adds a node that runs once for each item of a fan-out, fed with the item instead of the state.
    #[must_use = "a worker is started by `fan_out`"]
    pub fn worker<M, N>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> WorkerId<S, N::Input>
    where
        N: IntoNode<S, M>,
        N::Input: Clone + Serialize + DeserializeOwned + Sync,
        N::Output: Into<S::Update>,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |_, payload, ctx| {
            let input = payload.and_then(|payload| payload.downcast_ref::<N::Input>()).cloned();
            let running = input.map(|input| N::enter(&node, input, ctx));
            Box::pin(async move {
                let Some(running) = running else {
                    return Err(NodeError::terminal(format!(
                        "a worker was started without its `{}`",
                        type_name::<N::Input>()
                    )));
                };
                Ok(Output::of(running.await?.into()))
            })
        });
        let codec = PayloadCodec::of::<N::Input>();
        WorkerId(self.push(name.into(), Kind::Worker, call, Some(codec)), PhantomData)
    }

    /// Leads from one place to another, always. Several edges from one place run their ends side by side.
    pub fn edge(&mut self, from: impl EdgeFrom<S>, to: impl EdgeTo<S>) -> &mut Self {
        let from = self.at(from.source().0);
        for to in self.targets(to) {
            self.declared.edge(from, to);
        }
        self
    }

    /// Leads on once every one of `all` has finished. A source that finishes twice meanwhile counts once.
    pub fn join<F: EdgeFrom<S>>(&mut self, all: impl IntoIterator<Item = F>, to: impl EdgeTo<S>) -> &mut Self {
        let sources = all.into_iter().map(|source| self.at(source.source().0)).collect();
        let targets = self.targets(to);
        self.declared.join(sources, targets);
        self
    }

    /// Leads on where `choose` says, which sees the state at the step's start plus the task's own update. `wire` is
    /// called once for every variant when the graph is built, so a variant without an end does not compile.
    pub fn branch<R: Route, T: EdgeTo<S>>(
        &mut self,
        from: impl EdgeFrom<S>,
        choose: impl Fn(&S) -> R + Send + Sync + 'static,
        wire: impl Fn(R) -> T,
    ) -> &mut Self {
        let from = self.at(from.source().0);
        let table = R::ALL
            .iter()
            .map(|route| (Cow::Borrowed(route.label()), self.targets(wire(*route))))
            .collect();
        self.declared.branch(from, table);
        self.branches
            .push(Branch::Routes(Box::new(move |state| choose(state).index())));
        self
    }

    /// Says where each of a router's routes leads.
    pub fn routes<R: Route, T: EdgeTo<S>>(&mut self, from: RouterId<S, R>, wire: impl Fn(R) -> T) -> &mut Self {
        let from = self.at(At::Node(from.0));
        let table = R::ALL
            .iter()
            .map(|route| (Cow::Borrowed(route.label()), self.targets(wire(*route))))
            .collect();
        self.declared.routes(from, table);
        self
    }

    /// Starts a worker once for each item, side by side in the next step.
    pub fn fan_out<I, It>(
        &mut self,
        from: impl EdgeFrom<S>,
        to: WorkerId<S, I>,
        items: impl Fn(&S) -> It + Send + Sync + 'static,
    ) -> &mut Self
    where
        I: Send + Sync + 'static,
        It: IntoIterator<Item = I>,
    {
        let (from, to) = (self.at(from.source().0), self.at(At::Node(to.0)));
        self.declared.fan_out(from, to);
        let spread = move |state: &S| items(state).into_iter().map(|item| Arc::new(item) as Payload).collect();
        self.fan_outs.push(FanOut {
            spread: Box::new(spread),
        });
        self
    }

    /// Says how a node, router or worker is run.
    pub fn policy(&mut self, of: impl AnyNode<S>, policy: Policy) -> &mut Self {
        if let At::Node(slot) = self.at(of.slot().0)
            && slot.builder == self.tag
        {
            self.set_policy(slot, policy);
        }
        self
    }

    pub(crate) fn adopt(&mut self, slot: Slot, adopt: Adopt<S>) {
        if let Some(node) = self.nodes.get_mut(slot.index) {
            node.adopt = Some(adopt);
        }
    }

    pub(crate) fn set_policy(&mut self, slot: Slot, policy: Policy) {
        if let Some(node) = self.nodes.get_mut(slot.index) {
            node.policy = policy;
        }
    }

    /// Lets a node wait, once it is triggered, until a step leaves nothing else to run. However often it was triggered
    /// meanwhile, it runs once.
    pub fn defer(&mut self, node: impl AnyNode<S>) -> &mut Self {
        if let At::Node(slot) = self.at(node.slot().0) {
            self.declared.defer(slot.index);
        }
        self
    }

    /// Says that every run must be provided with a `T`, for nodes to read by [`Context::provided`].
    pub fn requires<T: Send + Sync + 'static>(&mut self) -> &mut Self {
        self.requires.push((TypeId::of::<T>(), type_name::<T>()));
        self
    }

    /// Checks everything and makes the graph.
    ///
    /// # Errors
    /// All problems at once, each with a code and its remedy.
    pub fn build(self) -> Result<Graph<S>, BuildErrors> {
        check::check(&self.declared)?;
        Ok(self.made())
    }

    /// Checks of a dynamic graph only what would make no sense to run.
    pub(crate) fn build_open(self, problems: Vec<BuildError>) -> Result<Graph<S>, BuildErrors> {
        check::check_open(&self.declared, problems)?;
        Ok(self.made())
    }

    fn made(self) -> Graph<S> {
        let order = self.declared.order();
        let topology = Topology::new(&self.declared, &order, S::fields(&self.shape), S::VERSION);
        let mut slots: Vec<Option<NodeSpec<S>>> = self.nodes.into_iter().map(Some).collect();
        let nodes = order
            .iter()
            .filter_map(|old| slots.get_mut(*old).and_then(Option::take))
            .collect();
        Graph {
            parts: Arc::new(Parts {
                shape: self.shape,
                topology: Arc::new(topology),
                nodes,
                branches: self.branches,
                fan_outs: self.fan_outs,
                requires: self.requires,
                compat: self.compat,
                breakpoints: self.breakpoints,
            }),
            store: None,
            clock: Arc::new(SystemClock),
            busy: Arc::new(Busy::default()),
        }
    }

    pub(crate) fn push(&mut self, name: Cow<'static, str>, kind: Kind, call: Call<S>, payload: Option<PayloadCodec>) -> Slot {
        self.nodes.push(NodeSpec {
            call,
            policy: Policy::default(),
            payload,
            adopt: None,
        });
        Slot {
            builder: self.tag,
            index: self.declared.node(name, kind),
        }
    }

    /// Notes an id of another builder as an error.
    fn at(&mut self, at: At) -> At {
        if let At::Node(slot) = at
            && slot.builder != self.tag
        {
            self.declared.foreign_id();
        }
        at
    }

    fn targets(&mut self, targets: impl EdgeTo<S>) -> Vec<At> {
        targets
            .targets()
            .into_ends()
            .into_iter()
            .map(|end| self.at(end))
            .collect()
    }
}

impl<S: State> fmt::Debug for GraphBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphBuilder")
            .field("declared", &self.declared)
            .finish_non_exhaustive()
    }
}

fn encode_payload<I: Serialize + 'static>(payload: &Payload) -> Result<Arc<[u8]>, StateError> {
    match payload.downcast_ref::<I>() {
        Some(item) => encode_record(item),
        None => Err(StateError::Encode(format!(
            "a worker's payload is not a `{}`",
            type_name::<I>()
        ))),
    }
}

fn show_payload<I: Serialize + 'static>(payload: &Payload) -> Result<Value, StateError> {
    let item = payload.downcast_ref::<I>();
    serde_json::to_value(item).map_err(|error| StateError::Encode(error.to_string()))
}

fn decode_payload<I: DeserializeOwned + Send + Sync + 'static>(bytes: &[u8]) -> Result<Payload, StateError> {
    decode_record::<I>(bytes).map(|item| Arc::new(item) as Payload)
}
