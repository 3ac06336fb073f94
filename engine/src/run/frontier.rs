//! What is to run next, as it is written down: by names, so that it outlives a build.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::plan::{Joins, Seed, StoredJoin};
use crate::{
    graph::{NodeSpec, Payload, Topology},
    state::{State, StateError},
};

/// The stored form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Frontier {
    pub(crate) tasks: Vec<StoredTask>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) joins: Vec<StoredJoin>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredTask {
    pub(crate) node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) send: Option<(u32, Bytes)>,
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

    pub(crate) fn store<S: State>(
        topology: &Topology,
        nodes: &[NodeSpec<S>],
        tasks: &[Seed<Payload>],
        joins: &Joins,
    ) -> Result<Arc<[u8]>, StateError> {
        let stored = tasks.iter().map(|task| {
            let codec = nodes.get(task.node).and_then(|node| node.payload.as_ref());
            let send = match (&task.send, codec) {
                (Some((number, payload)), Some(codec)) => Some((*number, Bytes((codec.encode)(payload)?))),
                _ => None,
            };
            Ok(StoredTask {
                node: topology.name(task.node).clone().into_owned(),
                send,
            })
        });
        let tasks = stored.collect::<Result<_, StateError>>()?;
        super::encode_record(&Self {
            tasks,
            joins: joins.store(topology),
        })
    }

    pub(crate) fn load<S: State>(
        &self,
        topology: &Topology,
        nodes: &[NodeSpec<S>],
    ) -> Result<(Vec<Seed<Payload>>, Joins), Lost> {
        let task = |stored: &StoredTask| {
            let node = topology
                .find(&stored.node)
                .ok_or_else(|| Lost::Place(stored.node.clone()))?;
            let codec = nodes.get(node).and_then(|spec| spec.payload.as_ref());
            let send = match (&stored.send, codec) {
                (Some((number, bytes)), Some(codec)) => Some((*number, (codec.decode)(&bytes.0).map_err(Lost::State)?)),
                (None, None) => None,
                // A worker has become a node, or the other way round.
                (Some(_), None) | (None, Some(_)) => return Err(Lost::Place(stored.node.clone())),
            };
            Ok(Seed { node, send })
        };
        let tasks = self.tasks.iter().map(task).collect::<Result<_, Lost>>()?;
        Ok((tasks, Joins::load(topology, &self.joins).map_err(Lost::Place)?))
    }
}
