//! What is written between the commas: infos, names of records, members of the sorted sets.

use std::sync::Arc;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use stepgraph::{
    CheckpointError, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{CheckpointInfo, NewCheckpoint, RecordKind, Seq, TaskRecord},
};
use uuid::Uuid;

use crate::row::{corrupt, names, unavailable};

/// Bytes of an id at the start of a member.
const ID_BYTES: usize = 16;

/// A checkpoint's facts but for those that the script adds: its number, its parent and its run.
#[derive(Serialize, Deserialize)]
struct StoredInfo<'a> {
    id: Uuid,
    step: i64,
    source: &'a str,
    fingerprint: Uuid,
    state_version: u32,
    /// Microseconds since 1970.
    created_at: i64,
    #[serde(with = "bytes")]
    frontier: &'a [u8],
}

/// Bytes as bytes, and not as a list of numbers.
mod bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}

pub(super) fn info_to_bytes(new: &NewCheckpoint) -> Result<Vec<u8>, CheckpointError> {
    let info = StoredInfo {
        id: new.id,
        step: new.step,
        source: names::source(new.source),
        fingerprint: new.fingerprint,
        state_version: new.state_version,
        created_at: new.created_at.timestamp_micros(),
        frontier: &new.frontier,
    };
    rmp_serde::to_vec_named(&info).map_err(|error| unavailable(error.to_string(), Some(Box::new(error))))
}

/// The member of a thread's infos: number, parent, length of the run, each with a comma behind, the run, the info.
pub(super) fn info_of_member(key: &ThreadKey, member: &[u8]) -> Result<CheckpointInfo, CheckpointError> {
    let unreadable = || corrupt(key, "a checkpoint whose facts are no facts");
    let (seq, rest) = up_to_comma(member).ok_or_else(unreadable)?;
    let (parent, rest) = up_to_comma(rest).ok_or_else(unreadable)?;
    let (length, rest) = up_to_comma(rest).ok_or_else(unreadable)?;
    let length = length.parse().map_err(|_| unreadable())?;
    let (run, info) = rest.split_at_checked(length).ok_or_else(unreadable)?;
    let info: StoredInfo<'_> = rmp_serde::from_slice(info).map_err(|error| corrupt(key, error.to_string()))?;
    let number = |text: &str| text.parse().map(Seq).map_err(|_| unreadable());
    Ok(CheckpointInfo {
        seq: number(seq)?,
        parent: (!parent.is_empty()).then(|| number(parent)).transpose()?,
        id: info.id,
        step: info.step,
        source: names::source_named(info.source)
            .ok_or_else(|| corrupt(key, format!("a checkpoint of the unknown source `{}`", info.source)))?,
        run: (!run.is_empty())
            .then(|| id(run).map(Into::into).ok_or_else(unreadable))
            .transpose()?,
        frontier: Arc::from(info.frontier),
        fingerprint: info.fingerprint,
        state_version: info.state_version,
        created_at: DateTime::from_timestamp_micros(info.created_at)
            .ok_or_else(|| corrupt(key, format!("a checkpoint of the impossible time {}", info.created_at)))?,
    })
}

fn up_to_comma(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b',')?;
    let (text, rest) = bytes.split_at_checked(at)?;
    Some((std::str::from_utf8(text).ok()?, rest.get(1..)?))
}

pub(super) fn id(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}

/// Kind, length of the task, the task, the key.
pub(super) fn record_name(record: &TaskRecord) -> String {
    format!(
        "{},{},{}{}",
        record.kind.as_str(),
        record.task.len(),
        record.task,
        record.key
    )
}

pub(super) fn record_of_name(key: &ThreadKey, name: &[u8], body: &[u8]) -> Result<TaskRecord, CheckpointError> {
    let unreadable = || corrupt(key, "a record whose name is none");
    let (kind, rest) = up_to_comma(name).ok_or_else(unreadable)?;
    let (length, rest) = up_to_comma(rest).ok_or_else(unreadable)?;
    let (task, of) = rest
        .split_at_checked(length.parse().map_err(|_| unreadable())?)
        .ok_or_else(unreadable)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| unreadable());
    Ok(TaskRecord {
        task: text(task)?,
        kind: RecordKind::from_name(kind)
            .ok_or_else(|| corrupt(key, format!("a record of the unknown kind `{kind}`")))?,
        key: text(of)?,
        body: Arc::from(body),
    })
}

/// What stands behind the first line in the payload of a checkpoint that stands on none: how long its parts are, then the
/// parts.
pub(super) fn whole(parts: &[Arc<[u8]>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for part in parts {
        payload.extend(format!("{},", part.len()).into_bytes());
    }
    payload.push(b'\n');
    for part in parts {
        payload.extend_from_slice(part);
    }
    payload
}

/// The id and the full name of a thread, as this store itself has written them: the tenant was authenticated then.
pub(super) fn id_and_thread(member: &[u8]) -> Result<(Uuid, ThreadKey), CheckpointError> {
    let unreadable = || unavailable("a list of the store names no thread; restore a backup".to_owned(), None);
    let (first, name) = member.split_at_checked(ID_BYTES).ok_or_else(unreadable)?;
    let name = std::str::from_utf8(name).map_err(|_| unreadable())?;
    let (tenant, rest) = name.split_once('/').ok_or_else(unreadable)?;
    let (thread, namespace) = rest.split_once('/').unwrap_or((rest, ""));
    let key = ThreadKey {
        tenant: TenantId::authenticated(tenant).map_err(|_| unreadable())?,
        thread: ThreadId::new(thread).map_err(|_| unreadable())?,
        namespace: Namespace::from_stored(namespace),
    };
    Ok((id(first).ok_or_else(unreadable)?, key))
}
