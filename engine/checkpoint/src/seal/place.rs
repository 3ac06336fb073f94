//! Where what is sealed belongs: it opens nowhere else.

use stepgraph::{
    RunId, ThreadKey,
    checkpoint::{CheckpointInfo, CheckpointSource, NewCheckpoint, RecordKind},
};
use uuid::Uuid;

use crate::value::Name;

/// Which cell of a thread. Only what never changes while the cell's content stays: a part of a state may move to a child
/// of its checkpoint when that one is taken out, so it is bound to the checkpoint that wrote it and to the one before, not
/// to the row it lies in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A whole state.
    Snapshot { of: Uuid },
    /// A step's effects, upon the state of another checkpoint.
    Delta { of: Uuid, upon: Uuid },
    /// A large value of states of the thread, under what it is called.
    Value { name: &'a Name },
    /// What runs next, with the facts beside it.
    Frontier(Facts),
    /// A fact about a task.
    Record {
        at: Uuid,
        task: &'a str,
        kind: RecordKind,
        name: &'a str,
    },
    /// What made a run fail.
    Error { run: RunId, graph: &'a str },
    /// A message to others.
    Message { id: Uuid, topic: &'a str },
}

/// What stands beside a frontier in the clear, so that none of it can be changed alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    id: Uuid,
    step: i64,
    source: CheckpointSource,
    fingerprint: Uuid,
    state_version: u32,
    created_at: i64,
}

impl From<&NewCheckpoint> for Facts {
    fn from(new: &NewCheckpoint) -> Self {
        Self {
            id: new.id,
            step: new.step,
            source: new.source,
            fingerprint: new.fingerprint,
            state_version: new.state_version,
            created_at: new.created_at.timestamp_micros(),
        }
    }
}

impl From<&CheckpointInfo> for Facts {
    fn from(info: &CheckpointInfo) -> Self {
        Self {
            id: info.id,
            step: info.step,
            source: info.source,
            fingerprint: info.fingerprint,
            state_version: info.state_version,
            created_at: info.created_at.timestamp_micros(),
        }
    }
}

impl Place<'_> {
    /// In words, for errors.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Snapshot { .. } | Self::Delta { .. } => "a state",
            Self::Value { .. } => "a large value of a state",
            Self::Frontier(_) => "what runs next in a checkpoint",
            Self::Record { .. } => "a task's record",
            Self::Error { .. } => "a run's error",
            Self::Message { .. } => "a message",
        }
    }

    /// The place as bytes: every part with its length before it, so that no two places are the same.
    pub(super) fn bytes(&self, thread: &ThreadKey, header: &[u8]) -> Vec<u8> {
        let mut parts = Parts(Vec::with_capacity(192));
        parts.put(header);
        parts.put(thread.tenant.as_str().as_bytes());
        parts.put(thread.thread.as_str().as_bytes());
        parts.put(thread.namespace.as_str().as_bytes());
        match self {
            Self::Snapshot { of } => parts.put(b"snapshot").put(of.as_bytes()),
            Self::Delta { of, upon } => parts.put(b"delta").put(of.as_bytes()).put(upon.as_bytes()),
            Self::Value { name } => parts.put(b"value").put(&name[..]),
            Self::Frontier(facts) => parts
                .put(b"frontier")
                .put(facts.id.as_bytes())
                .put(&facts.step.to_be_bytes())
                .put(source(facts.source))
                .put(facts.fingerprint.as_bytes())
                .put(&facts.state_version.to_be_bytes())
                .put(&facts.created_at.to_be_bytes()),
            Self::Record { at, task, kind, name } => parts
                .put(b"record")
                .put(at.as_bytes())
                .put(task.as_bytes())
                .put(kind.as_str().as_bytes())
                .put(name.as_bytes()),
            Self::Error { run, graph } => parts.put(b"error").put(run.as_uuid().as_bytes()).put(graph.as_bytes()),
            Self::Message { id, topic } => parts.put(b"message").put(id.as_bytes()).put(topic.as_bytes()),
        };
        parts.0
    }
}

struct Parts(Vec<u8>);

impl Parts {
    fn put(&mut self, part: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }
}

const fn source(source: CheckpointSource) -> &'static [u8] {
    match source {
        CheckpointSource::Input => b"input",
        CheckpointSource::Step => b"step",
        CheckpointSource::Update => b"update",
        CheckpointSource::Fork => b"fork",
    }
}
