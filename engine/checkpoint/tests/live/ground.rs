//! Names and commits for the tests of the stores.

use stepgraph::{
    Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        CheckpointSource, Commit, Epoch, NewCheckpoint, OutboxMessage, Payload, RecordKind, RunMark, RunStatus,
        TaskRecord,
    },
};
use uuid::Uuid;

pub(crate) fn key(thread: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(thread).unwrap())
}

pub(crate) fn checkpoint(number: u64) -> NewCheckpoint {
    NewCheckpoint {
        id: Uuid::from_u128(number.into()),
        step: i64::try_from(number).unwrap(),
        source: CheckpointSource::Step,
        payload: Payload::Snapshot(vec![7; 100].into()),
        frontier: b"next".as_slice().into(),
        fingerprint: Uuid::nil(),
        state_version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

pub(crate) fn only(checkpoint: NewCheckpoint) -> Commit {
    Commit {
        checkpoint: Some(checkpoint),
        ..Commit::default()
    }
}

/// A checkpoint, a record at the one before, a message and the run.
pub(crate) fn everything(number: u64) -> Commit {
    Commit {
        records: vec![TaskRecord {
            task: format!("task {number}"),
            kind: RecordKind::Output,
            key: String::new(),
            body: b"update".as_slice().into(),
        }],
        run: Some(RunMark {
            run: Uuid::from_u128(number.into()).into(),
            graph: "graph".into(),
            status: RunStatus::Running,
            error: None,
        }),
        outbox: vec![OutboxMessage {
            id: Uuid::from_u128(number.into()),
            topic: "topic".to_owned(),
            body: Vec::new(),
        }],
        ..only(checkpoint(number))
    }
}

/// A thread with one checkpoint.
pub(crate) async fn begun(store: &dyn Checkpointer, key: &ThreadKey) -> Epoch {
    let epoch = store.claim(key).await.unwrap();
    store.commit(key, epoch, None, only(checkpoint(1))).await.unwrap();
    epoch
}
