//! The lines: first what they are of, then for each thread of the nest where it stands, then its checkpoints.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    checkpoint::{Branch, CheckpointSource, RecordKind, RunMark, RunStatus, Seq, Tag},
    id::RunId,
    tree::{Tree, hex, unhex},
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Export(Header),
    Thread(Standing),
    Checkpoint(Box<Row>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) graph: String,
    pub(super) fingerprint: Uuid,
    pub(super) state_version: u32,
    pub(super) fields: Vec<String>,
}

/// Where the thread of one graph of the nest stands.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Empty for the outermost.
    pub(super) namespace: String,
    pub(super) branches: Vec<Branch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<Tag>,
    pub(super) run: Option<Mark>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    run: RunId,
    graph: String,
    status: RunStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<RunMark> for Mark {
    fn from(mark: RunMark) -> Self {
        Self {
            run: mark.run,
            graph: mark.graph.into_owned(),
            status: mark.status,
            error: mark.error,
        }
    }
}

impl From<Mark> for RunMark {
    fn from(mark: Mark) -> Self {
        Self {
            run: mark.run,
            graph: mark.graph.into(),
            status: mark.status,
            error: mark.error,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) seq: Seq,
    pub(super) parent: Option<Seq>,
    pub(super) id: Uuid,
    pub(super) step: i64,
    pub(super) source: CheckpointSource,
    pub(super) run: Option<RunId>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) fingerprint: Uuid,
    pub(super) state_version: u32,
    pub(super) state: Stored,
    pub(super) frontier: Body,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) records: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stored {
    Snapshot(Body),
    Delta(Body),
    /// A snapshot and the deltas upon it, of a checkpoint whose parent was taken out.
    Line(Vec<Body>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) task: String,
    pub(super) kind: RecordKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) key: String,
    pub(super) body: Body,
}

/// Stored bytes, so that they can be read where that loses nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    /// `MessagePack`.
    Packed(Tree),
    /// JSON text.
    Text(Tree),
    /// Anything else, hexadecimal.
    Bytes(String),
}

impl Body {
    /// What gives exactly these bytes back.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let again = |body: &Self| {
            let read: Option<Self> = serde_json::to_string(body)
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok());
            read.and_then(|body| body.bytes()).is_some_and(|again| *again == *bytes)
        };
        let packed = Tree::unpack(bytes).map(Self::Packed);
        if let Some(body) = packed.filter(again) {
            return body;
        }
        let text = serde_json::from_slice(bytes).ok().map(Self::Text);
        text.filter(again).unwrap_or_else(|| Self::Bytes(hex(bytes)))
    }

    pub(super) fn bytes(&self) -> Option<Arc<[u8]>> {
        match self {
            Self::Packed(tree) => tree.pack().map(Into::into),
            Self::Text(tree) => serde_json::to_vec(tree).ok().map(Into::into),
            Self::Bytes(text) => unhex(text).map(Into::into),
        }
    }
}
