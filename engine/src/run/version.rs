//! Threads that another version of the program has written: which graph may go on with them, and under which names.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    driver::Driver,
    error::RunError,
    frontier::{Frontier, Lost},
    guard::guarded,
    open::Opening,
    plan::Seed,
    step::StoredOutput,
};
use crate::{
    checkpoint::Checkpoint,
    graph::{Graph, Parts, Payload, Topology},
    state::{State, StateError},
};

/// What becomes of a thread with tasks left that another version of the graph has written: other nodes, ways, fields or
/// reducers, so another [fingerprint](Graph::fingerprint). A state that was merely migrated is not another graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versions {
    /// It goes on with this graph if every place it waits at is here, perhaps [under another
    /// name](crate::GraphBuilder::renamed); [`RunError::Incompatible`] otherwise.
    #[default]
    Latest,
    /// It is refused with [`RunError::OtherVersion`].
    Refuse,
    /// It goes on with the version it began on, given by [`Graph::with_older`]; without that, it is refused.
    Pin,
}

impl<S: State> Graph<S> {
    /// Says what becomes of threads with tasks left that another version of this graph has written. New input on a thread
    /// without tasks begins on this graph in any case.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State, Versions};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input)] n: u64 }
    /// fn version(by: u64) -> Result<Graph<Count>, stepgraph::BuildErrors> {
    ///     let mut g = Graph::<Count>::builder("count");
    ///     let name = if by == 1 { "add" } else { "add_more" };
    ///     let add = g.node(name, move |count: Count| async move { Ok(Count::update().n(count.n + by)) });
    ///     g.edge(START, add).edge(add, END);
    ///     g.build()
    /// }
    /// let graph = version(2)?.versions(Versions::Pin).with_older(version(1)?);
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    #[must_use]
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Keeps an older version of this graph for threads that began on it, under [`Versions::Pin`]. Its checkpointer and
    /// clock are not used, this graph's are.
    #[must_use]
    pub fn with_older(mut self, older: Self) -> Self {
        Arc::make_mut(self.older.get_or_insert_default()).push(older);
        self
    }

    /// Whether this graph has written it, with the state in any form that can be read.
    fn wrote(&self, fingerprint: Uuid) -> bool {
        let topology = &self.parts.topology;
        topology.fingerprint == fingerprint
            || S::forms(&self.parts.shape)
                .iter()
                .any(|(version, fields)| topology.hash(fields, *version) == fingerprint)
    }
}

impl<S: State> Opening<S> {
    /// Takes the version of the graph that may go on from a checkpoint.
    pub(super) fn choose_version(&mut self, from: &Checkpoint) -> Result<(), RunError> {
        let stored = from.info.fingerprint;
        let here = self.graph.parts.topology.fingerprint;
        if stored == here || self.graph.versions == Versions::Latest || self.graph.wrote(stored) {
            return Ok(());
        }
        if Frontier::decode(&from.info.frontier)?.tasks.is_empty() {
            return Ok(());
        }
        let older = match self.graph.versions {
            Versions::Latest | Versions::Refuse => None,
            Versions::Pin => self
                .graph
                .older
                .iter()
                .flat_map(|older| older.iter())
                .find(|older| older.wrote(stored)),
        };
        let Some(older) = older else {
            return Err(RunError::OtherVersion {
                thread: Box::new(self.key.clone()),
                graph: self.graph.name().to_owned(),
                stored,
                here,
            });
        };
        let parts = Arc::clone(&older.parts);
        Arc::make_mut(&mut self.graph.setting).topology = Arc::clone(&parts.topology);
        self.graph.parts = parts;
        let mut required = self.graph.parts.requires.iter();
        match required.find(|(id, _)| !self.options.provided.contains(*id)) {
            None => Ok(()),
            Some((_, name)) => Err(RunError::Missing {
                graph: self.graph.name().to_owned(),
                name,
            }),
        }
    }
}

/// What a step has of another version of the program. Until the step has ended its tasks keep the names under which they were
/// stored: records, effects and graphs inside are found by them.
#[derive(Debug)]
pub(crate) struct Inherited {
    names: Vec<(usize, String)>,
    state_version: u32,
}

impl Inherited {
    /// What the step that starts at a checkpoint has, if anything.
    pub(super) fn of<S: State>(parts: &Parts<S>, from: &Checkpoint) -> Result<Option<Arc<Self>>, RunError> {
        let topology = &parts.topology;
        let mut names: Vec<(usize, String)> = Vec::new();
        if topology.renames() {
            for task in Frontier::decode(&from.info.frontier)?.tasks {
                let Some(node) = topology.find(&task.node) else {
                    continue;
                };
                if *topology.name(node) != task.node {
                    names.push((node, task.node));
                }
            }
        }
        let state_version = from.info.state_version;
        if names.is_empty() && state_version == S::version(&parts.shape) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { names, state_version })))
    }

    /// A task's name inside its step, as it is stored.
    pub(crate) fn task_id(inherited: Option<&Self>, topology: &Topology, node: usize, send: Option<u32>) -> String {
        let old = inherited.and_then(|inherited| inherited.names.iter().find(|(known, _)| *known == node));
        match (old, send) {
            (None, send) => topology.task_id(node, send),
            (Some((_, old)), None) => old.clone(),
            (Some((_, old)), Some(send)) => format!("{old}#{send}"),
        }
    }
}

impl<S: State> Driver<S> {
    /// What a task or a command gave back, of whichever version.
    pub(super) fn kept_output(&self, body: &[u8]) -> Result<StoredOutput<S::Update>, StateError> {
        let shape = &self.shared.parts.shape;
        let inherited = self.shared.inherited.as_ref();
        let version = inherited.map_or_else(|| S::version(shape), |inherited| inherited.state_version);
        kept_output::<S>(shape, version, body)
    }

    /// The version to be written with an update, if it is not that of the state the step began with.
    pub(super) fn update_version(&self) -> Option<u32> {
        let here = S::version(&self.shared.parts.shape);
        let inherited = self.shared.inherited.as_ref();
        inherited
            .filter(|inherited| inherited.state_version != here)
            .map(|_| here)
    }
}

/// Calls what says how an older form becomes the new one.
fn migrated<T>(call: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    guarded(call).map_err(|panic| StateError::Decode(panic.to_string()))?
}

/// What a task gave back on a state of this version. If that is an older one, a run that was cut off again may have left
/// outputs of either version.
pub(super) fn kept_output<S: State>(
    shape: &S::Shape,
    version: u32,
    body: &[u8],
) -> Result<StoredOutput<S::Update>, StateError> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        version: Option<u32>,
    }
    if version == S::version(shape) {
        return S::decode_kept(shape, version, body);
    }
    let written: Written = super::decode_record(body)?;
    migrated(|| S::decode_kept(shape, written.version.unwrap_or(version), body))
}

impl<U> fmt::Debug for StoredOutput<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredOutput").finish_non_exhaustive()
    }
}

impl<U> StoredOutput<U> {
    /// The same with its update migrated.
    pub fn map<V>(self, migrate: impl FnOnce(U) -> V) -> StoredOutput<V> {
        StoredOutput {
            update: migrate(self.update),
            route: self.route,
            also: self.also,
            goto: self.goto,
            leave: self.leave,
            spend: self.spend,
            cancelled: self.cancelled,
            version: self.version,
            handler: self.handler,
        }
    }
}

/// Migrates inputs that were admitted and not merged yet.
pub(super) fn migrate_inputs<S: State>(
    parts: &Parts<S>,
    version: u32,
    mut tasks: Vec<Seed<Payload>>,
) -> Result<Vec<Seed<Payload>>, StateError> {
    if version == S::version(&parts.shape) {
        return Ok(tasks);
    }
    let start = parts.topology.start();
    for task in tasks.iter_mut().filter(|task| task.node == start) {
        let Some((_, payload)) = &mut task.send else { continue };
        if let Some(input) = payload.downcast_ref::<S::Input>() {
            let input = migrated(|| S::migrate_input(&parts.shape, version, input.clone()))?;
            *payload = Arc::new(input);
        }
    }
    Ok(tasks)
}

/// A router's choice as it is written down: by its label. Older rows have its position.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum StoredRoute {
    Position(usize),
    Label(String),
}

impl StoredRoute {
    pub(super) fn of(topology: &Topology, node: usize, route: Option<usize>) -> Option<Self> {
        let route = route?;
        let label = topology.exits(node).labels.get(route);
        Some(label.map_or(Self::Position(route), |label| Self::Label(label.clone().into_owned())))
    }

    /// The same of the routes that a node takes besides its edges.
    pub(super) fn all(topology: &Topology, node: usize, routes: &[usize]) -> Vec<Self> {
        let routes = routes.iter().map(|route| Self::of(topology, node, Some(*route)));
        routes.flatten().collect()
    }

    /// Its position now; a route that the router does not have any more is lost.
    pub(super) fn position(self, topology: &Topology, node: usize) -> Result<usize, Lost> {
        let labels = &topology.exits(node).labels;
        let (found, said) = match self {
            Self::Position(at) => (Some(at).filter(|at| *at < labels.len()), at.to_string()),
            Self::Label(label) => (labels.iter().position(|known| *known == label), label),
        };
        found.ok_or_else(|| Lost::Place(format!("route {said} of {}", topology.name(node))))
    }
}
