//! Graphs: declared by a builder, checked whole, then run any number of times.

mod also;
mod around;
mod builder;
mod check;
mod draw;
mod fan_out;
mod id;
mod join;
mod outline;
mod parallel;
mod parts;
mod rename;
mod rules;
mod running;
mod short;
mod topology;
mod warning;
mod writes;

use std::{
    borrow::Cow,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

#[cfg(test)]
pub(crate) use self::topology::Declared;
pub(crate) use self::{
    around::CachePolicy,
    fan_out::OnItemFailure,
    id::{At, Slot},
    parts::{Branch, Call, Goto, Leave, NodeSpec, Output, Parts, Payload, PayloadCodec, Rare, UnknownTarget},
    rules::without_failure,
    running::Running,
    topology::{Exits, Join, Kind, Topology},
};
pub use self::{
    around::Reads,
    builder::GraphBuilder,
    check::{BuildError, BuildErrors},
    fan_out::{FanOutPolicy, ItemError},
    id::{
        AlsoId, AnyNode, END, EdgeFrom, EdgeTo, End, HandlerId, HandlerRouterId, Handles, MayFail, NodeId, RouterId,
        RoutesFrom, START, Source, Start, Targets, WorkerId, from, to,
    },
    join::JoinRule,
    outline::{Outline, OutlineWay},
    rules::OnFailure,
    warning::Warning,
};
use crate::{
    cache::{CacheError, NodeCache},
    checkpoint::Checkpointer,
    clock::{Clock, SystemClock},
    layer::Layer,
    run::{Busy, Recording, Subgraph, Versions, Ways},
    state::{FromState, State},
};

/// A graph that has passed every check. Cheap to clone; one graph serves every run.
pub struct Graph<S: State>(Arc<Built<S>>);

/// What a graph is, behind one count: every run takes a graph of its own.
#[doc(hidden)]
#[derive(Clone)]
pub struct Built<S: State> {
    pub(crate) parts: Arc<Parts<S>>,
    pub(crate) setting: Arc<Setting>,
    pub(crate) store: Option<Arc<dyn Checkpointer>>,
    pub(crate) cache: Option<Arc<dyn NodeCache>>,
    pub(crate) versions: Versions,
    /// Older versions of this graph, for threads that began on them.
    pub(crate) older: Option<Arc<Vec<Graph<S>>>>,
    pub(crate) recording: Recording,
}

/// What every run of a graph shares whatever its state: one count to keep for all of it.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) topology: Arc<Topology>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Which threads have runs, those of graphs inside nodes included.
    pub(crate) busy: Arc<Busy>,
    pub(crate) layers: Arc<[Arc<dyn Layer>]>,
    /// Marks what the runs cover, for tests.
    pub(crate) ways: Option<Arc<Ways>>,
}

impl Setting {
    pub(crate) fn new(topology: Arc<Topology>) -> Self {
        Self {
            topology,
            clock: Arc::new(SystemClock),
            busy: Arc::default(),
            layers: Arc::default(),
            ways: None,
        }
    }
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
        Arc::make_mut(&mut self.setting).clock = Arc::new(clock);
        self
    }

    /// Wraps a layer around every node, step and run of this graph; graphs inside its nodes have layers of their own. The
    /// first to be given is the outermost.
    #[must_use]
    pub fn layer(mut self, layer: impl Layer) -> Self {
        let more: Arc<dyn Layer> = Arc::new(layer);
        let setting = Arc::make_mut(&mut self.setting);
        setting.layers = setting.layers.iter().cloned().chain([more]).collect();
        self
    }

    /// Keeps what nodes gave in `cache`, for the nodes that [`GraphBuilder::cache`] names; otherwise they share a
    /// [`MemoryCache`](crate::MemoryCache) of this graph, or that of the graph around it.
    #[must_use]
    pub fn node_cache(mut self, cache: impl NodeCache) -> Self {
        self.cache = Some(Arc::new(cache));
        self
    }

    /// Forgets what a node gave, for all tenants.
    ///
    /// # Errors
    /// [`CacheError::UnknownNode`]; what the cache said.
    pub async fn clear_cache(&self, node: &str) -> Result<(), CacheError> {
        if self.parts.topology.find(node).is_none() {
            return Err(CacheError::UnknownNode {
                graph: self.name().to_owned(),
                node: node.to_owned(),
            });
        }
        match self.cache.as_ref().or(self.parts.cache.as_ref()) {
            Some(cache) => cache.clear(self.name(), node).await,
            None => Ok(()),
        }
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

    /// What its state is made of: for a dynamic graph its channels, for a derived state nothing that its type does not say.
    #[must_use]
    pub fn shape(&self) -> &S::Shape {
        &self.parts.shape
    }

    /// A drawing of the graph as a Mermaid flow chart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        draw::mermaid(&self.parts.topology)
    }

    /// A drawing of the graph in the language of Graphviz.
    #[must_use]
    pub fn dot(&self) -> String {
        draw::dot(&self.parts.topology)
    }

    /// The graph as text for a terminal: every place in the order in which runs reach it, with its ways on.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input)] n: u64 }
    /// # let mut g = Graph::<Count>::builder("count");
    /// # let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
    /// # g.edge(START, add).edge(add, END);
    /// # let graph = g.build()?;
    /// assert_eq!(graph.ascii(), "START\n  --> add\nadd\n  --> END\n");
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    #[must_use]
    pub fn ascii(&self) -> String {
        draw::ascii(&self.parts.topology)
    }

    /// The graph as JSON, for tools. Its shape is stable; keys may be added:
    ///
    /// ```text
    /// {
    ///   "graph": "chat", "fingerprint": "5f1c..",
    ///   "nodes": [{"name": "ask", "kind": "node" | "router" | "worker" | "handler" | "handler_router" | "open"}],
    ///   "edges": [{"from": "START", "to": "ask", "kind": "edge" | "join" | "route" | "fan_out" | "on_error", "label": null | "text"}],
    ///   "joins": [{"sources": ["a", "b"], "targets": ["c"], "rule": null | "text"}]
    /// }
    /// ```
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        draw::json(&self.parts.topology)
    }

    /// What is doubtful about the graph and does not keep it from running: of a dynamic graph what a typed one would refuse,
    /// and of every graph its parallel writers: two nodes that may run in the same step and both say by
    /// [`writes`](GraphBuilder::writes) that they write a field which takes one write a step.
    ///
    /// Parallel writers are found by the declared ways, whatever the state may be. The ends of one branch or router exclude
    /// each other, and so do a task and its handler; two branches are taken to choose freely, even if they never choose alike. So no pair of a typed graph is
    /// missed in a run from START, and now and then one is named that never meets: of nodes on a cycle, when the ways to a
    /// join there have different lengths. Not seen are branches of a dynamic graph that lead to several of their ends or to
    /// places that they do not list, nodes that lead on by themselves, what a command or an edit of a thread adds, and joins
    /// that an earlier run has left half reached.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.parts.warnings
    }

    /// The graph as a node of another: `I` starts it, `O` is read from its last state.
    #[must_use]
    pub fn as_node<I: Into<S::Input>, O: FromState<S>>(self) -> Subgraph<S, I, O> {
        Subgraph::new(self)
    }
}

impl<S: State> Clone for Graph<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: State> From<Built<S>> for Graph<S> {
    fn from(built: Built<S>) -> Self {
        Self(Arc::new(built))
    }
}

impl<S: State> Deref for Graph<S> {
    type Target = Built<S>;

    #[inline]
    fn deref(&self) -> &Built<S> {
        &self.0
    }
}

/// What is changed is this graph alone, not its clones.
impl<S: State> DerefMut for Graph<S> {
    fn deref_mut(&mut self) -> &mut Built<S> {
        Arc::make_mut(&mut self.0)
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

impl<S: State> fmt::Debug for Built<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").finish_non_exhaustive()
    }
}
