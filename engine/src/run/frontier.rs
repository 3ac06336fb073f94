//! What is to run next, as it is written down: by names, so that it outlives a build.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

use super::{
    budget::Account,
    error::RunError,
    plan::{Seed, StoredJoin, Waiting},
    recording::Origin,
};
use crate::{
    graph::{Kind, NodeSpec, Parts, Payload, Topology},
    id::ThreadKey,
    state::{State, StateError},
};

/// The stored form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Frontier {
    pub(crate) tasks: Vec<StoredTask>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) joins: Vec<StoredJoin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deferred: Vec<String>,
    /// What it was made of, if that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    /// What the run has spent.
    #[serde(default, skip_serializing_if = "Account::is_empty")]
    pub(crate) account: Account,
}

/// Frontiers with one node or none and nothing else, each written down once for the runs of a graph on some of the threads
/// of the machine, so that threads seldom take a count from one another: by node, the last is the end.
#[derive(Default)]
pub(crate) struct PlainFrontiers([OnceLock<Box<[Written]>>; FRONTIERS_APART]);

/// On so many of the machine's threads frontiers are apart.
const FRONTIERS_APART: usize = 8;

type Written = OnceLock<Arc<[u8]>>;

impl PlainFrontiers {
    #[inline]
    fn slot(&self, topology: &Topology, node: Option<usize>) -> Option<&Written> {
        thread_local! {
            static APART: usize = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed) % FRONTIERS_APART
            };
        }
        let nodes = topology.names().len();
        let slots = self.0.get(APART.with(|apart| *apart))?;
        let slots = slots.get_or_init(|| (0..=nodes).map(|_| OnceLock::new()).collect());
        slots.get(node.unwrap_or(nodes))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredTask {
    pub(crate) node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) send: Option<(u32, Bytes)>,
}

/// Where a task goes besides its edges.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredGoto {
    pub(crate) to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Bytes>,
}

/// Bytes that stay bytes in `MessagePack`.
#[derive(Debug, Clone)]
pub(crate) struct Bytes(pub(crate) Arc<[u8]>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// What cannot be found again.
#[derive(Debug)]
pub(crate) enum Lost {
    /// A node or join that the graph does not have.
    Place(String),
    /// Bytes that do not decode.
    State(StateError),
}

impl Frontier {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        super::decode_record(bytes)
    }

    /// The names of the tasks' nodes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.node.clone()).collect()
    }

    /// The same as the graph names them now.
    pub(crate) fn names_in(&self, topology: &Topology) -> Vec<String> {
        let names = self.tasks.iter().map(|task| topology.current(&task.node).to_owned());
        names.collect()
    }

    /// Tasks that were of different nodes are not one node's now.
    fn told_apart(&self, topology: &Topology) -> Result<(), Lost> {
        let mut known: Vec<(usize, &str)> = Vec::new();
        for task in &self.tasks {
            let Some(node) = topology.place(&task.node) else {
                continue;
            };
            match known.iter().find(|(at, _)| *at == node) {
                Some((_, name)) if *name != task.node => return Err(Lost::Place(task.node.clone())),
                Some(_) => {}
                None => known.push((node, &task.node)),
            }
        }
        Ok(())
    }

    pub(crate) fn store<S: State>(
        parts: &Parts<S>,
        tasks: &[Seed<Payload>],
        waiting: &Waiting,
        account: Account,
    ) -> Result<Arc<[u8]>, StateError> {
        match tasks {
            _ if !waiting.is_plain() || !account.is_empty() => {}
            [] => return Self::store_plain(parts, None),
            [Seed { node, send: None }] => return Self::store_plain(parts, Some(*node)),
            _ => {}
        }
        Self::encode(&parts.topology, &parts.nodes, tasks, waiting, account)
    }

    /// The same of one node or none, where nothing waits and nothing was spent.
    #[inline]
    pub(crate) fn store_plain<S: State>(parts: &Parts<S>, node: Option<usize>) -> Result<Arc<[u8]>, StateError> {
        let slot = parts.frontiers.slot(&parts.topology, node);
        if let Some(known) = slot.and_then(OnceLock::get) {
            return Ok(Arc::clone(known));
        }
        let task = node.map(|node| Seed { node, send: None });
        let (waiting, account) = (Waiting::default(), Account::default());
        let stored = Self::encode(&parts.topology, &parts.nodes, task.as_slice(), &waiting, account)?;
        Ok(match slot {
            Some(slot) => Arc::clone(slot.get_or_init(|| stored)),
            None => stored,
        })
    }

    fn encode<S: State>(
        topology: &Topology,
        nodes: &[NodeSpec<S>],
        tasks: &[Seed<Payload>],
        waiting: &Waiting,
        account: Account,
    ) -> Result<Arc<[u8]>, StateError> {
        let stored = tasks.iter().map(|task| {
            let send = match &task.send {
                Some((number, payload)) => {
                    encode_payload(topology, nodes, task.node, payload)?.map(|bytes| (*number, bytes))
                }
                None => None,
            };
            Ok(StoredTask {
                node: topology.name(task.node).clone().into_owned(),
                send,
            })
        });
        let tasks = stored.collect::<Result<_, StateError>>()?;
        super::encode_record(&Self {
            tasks,
            joins: waiting.store_joins(topology),
            deferred: waiting.store_deferred(topology),
            account,
            origin: None,
        })
    }

    /// The same bytes, saying also what the checkpoint was made of.
    pub(crate) fn with_origin(stored: &[u8], origin: Origin) -> Result<Arc<[u8]>, StateError> {
        super::encode_record(&Self {
            origin: Some(origin),
            ..Self::decode(stored)?
        })
    }

    pub(crate) fn load<S: State>(
        &self,
        topology: &Topology,
        nodes: &[NodeSpec<S>],
    ) -> Result<(Vec<Seed<Payload>>, Waiting), Lost> {
        let task = |stored: &StoredTask| {
            let place = || Lost::Place(stored.node.clone());
            let node = topology.place(&stored.node).ok_or_else(place)?;
            let send = match &stored.send {
                Some((number, bytes)) => Some((
                    *number,
                    decode_payload(topology, nodes, node, bytes)?.ok_or_else(place)?,
                )),
                // A node has become a worker.
                None if topology.kind(node) == Kind::Worker => return Err(place()),
                None => None,
            };
            Ok(Seed { node, send })
        };
        let mut tasks: Vec<Seed<Payload>> = self.tasks.iter().map(task).collect::<Result<_, Lost>>()?;
        if !topology.renames() {
            let waiting = Waiting::load(topology, &self.joins, &self.deferred).map_err(Lost::Place)?;
            return Ok((tasks, waiting));
        }
        self.told_apart(topology)?;
        // Tasks stand in the order of the names that their nodes have now.
        tasks.sort_by_key(|task| if task.send.is_none() { task.node } else { usize::MAX });
        let joins: Vec<_> = self.joins.iter().map(|join| join.renamed(topology)).collect();
        let waiting = Waiting::load(topology, &joins, &self.deferred).map_err(Lost::Place)?;
        Ok((tasks, waiting))
    }
}

/// What a task is fed with, written down; `None` if its node takes nothing. START is fed with the input.
pub(crate) fn encode_payload<S: State>(
    topology: &Topology,
    nodes: &[NodeSpec<S>],
    node: usize,
    payload: &Payload,
) -> Result<Option<Bytes>, StateError> {
    if node == topology.start() {
        let input = payload.downcast_ref::<S::Input>();
        return input.map(|input| super::encode_record(input).map(Bytes)).transpose();
    }
    let codec = nodes.get(node).and_then(|node| node.payload.as_ref());
    codec.map(|codec| (codec.encode)(payload).map(Bytes)).transpose()
}

/// The same read back; `None` if the node takes nothing any more.
pub(crate) fn decode_payload<S: State>(
    topology: &Topology,
    nodes: &[NodeSpec<S>],
    node: usize,
    bytes: &Bytes,
) -> Result<Option<Payload>, Lost> {
    if node == topology.start() {
        let input: S::Input = super::decode_record(&bytes.0).map_err(Lost::State)?;
        return Ok(Some(Arc::new(input)));
    }
    let codec = nodes.get(node).and_then(|node| node.payload.as_ref());
    codec
        .map(|codec| (codec.decode)(&bytes.0).map_err(Lost::State))
        .transpose()
}

/// What cannot be found again, as the error of a run.
pub(crate) fn lost(lost: Lost, thread: &ThreadKey, graph: &str) -> RunError {
    match lost {
        Lost::Place(place) => RunError::Incompatible {
            thread: thread.clone(),
            graph: graph.to_owned(),
            place,
        },
        Lost::State(error) => error.into(),
    }
}
