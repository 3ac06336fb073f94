//! What the facts stand on: names, checkpoints to write, and a hand that holds a thread.

use std::{fmt, sync::Arc};

use chrono::DateTime;
use futures_util::future::BoxFuture;
use stepgraph::{
    CheckpointError, Checkpointer, InvalidId, RunId, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, Checkpoint, CheckpointSource, Commit, Epoch, NewCheckpoint, OutboxMessage, Payload, RecordKind, RunMark,
        RunStatus, Seq, TaskRecord,
    },
};
use uuid::Uuid;

/// Longest text shown of something that was not as it should be.
const SHOWN_CHARS_MAX: usize = 300;

/// A statement about every store.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) holds: for<'a> fn(&'a dyn Checkpointer) -> BoxFuture<'a, Found>,
}

/// Makes the table of a group: each function's name is the fact's.
macro_rules! facts {
    ($($name:ident),* $(,)?) => {
        pub(super) const FACTS: &[super::ground::Fact] = &[
            $(super::ground::Fact { name: stringify!($name), holds: |store| Box::pin($name(store)) }),*
        ];
    };
}
pub(super) use facts;

/// Whether a fact holds.
pub(super) type Found = Result<(), Broken>;

/// What was seen instead of what should be.
#[derive(Debug)]
pub(super) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CheckpointError> for Broken {
    fn from(error: CheckpointError) -> Self {
        Self(format!("the store refused: {error}"))
    }
}

impl From<InvalidId> for Broken {
    fn from(error: InvalidId) -> Self {
        Self(error.to_string())
    }
}

pub(super) fn broken<T>(message: impl Into<String>) -> Result<T, Broken> {
    Err(Broken(message.into()))
}

fn shown(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Both are the same.
pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, wanted: &T) -> Found {
    if found == wanted {
        Ok(())
    } else {
        broken(format!("{what} is {}, should be {}", shown(found), shown(wanted)))
    }
}

/// It is so.
pub(super) fn is(what: &str, condition: bool) -> Found {
    if condition {
        Ok(())
    } else {
        broken(format!("not so: {what}"))
    }
}

/// It was refused, with the error of this code.
pub(super) fn refused<T: fmt::Debug>(result: Result<T, CheckpointError>, code: &str) -> Found {
    match result {
        Ok(value) => broken(format!("should be refused with {code}, gave {}", shown(&value))),
        Err(error) => same("the error's code", &error.code(), &code),
    }
}

pub(super) fn key(tenant: &str, thread: &str) -> Result<ThreadKey, Broken> {
    Ok(ThreadKey::new(TenantId::authenticated(tenant)?, ThreadId::new(thread)?))
}

pub(super) fn bytes(text: impl AsRef<[u8]>) -> Arc<[u8]> {
    Arc::from(text.as_ref())
}

pub(super) fn snapshot(text: impl AsRef<[u8]>) -> Payload {
    Payload::Snapshot(bytes(text))
}

pub(super) fn delta(text: impl AsRef<[u8]>) -> Payload {
    Payload::Delta(bytes(text))
}

/// A checkpoint of which every field depends on the number.
pub(super) fn checkpoint(number: u32) -> NewCheckpoint {
    let spread = i64::from(number);
    NewCheckpoint {
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)),
        step: spread,
        source: CheckpointSource::Step,
        payload: snapshot(format!("state {number}")),
        frontier: bytes(format!("frontier {number}")),
        fingerprint: Uuid::from_u128(0xF00D_0000 + u128::from(number)),
        state_version: number,
        created_at: DateTime::from_timestamp_micros(1_700_000_000_000_001 + spread).unwrap_or_default(),
    }
}

pub(super) fn record(task: &str, kind: RecordKind, key: &str, body: &str) -> TaskRecord {
    TaskRecord {
        task: task.to_owned(),
        kind,
        key: key.to_owned(),
        body: bytes(body),
    }
}

pub(super) fn message(number: u128, topic: &str) -> OutboxMessage {
    OutboxMessage {
        id: Uuid::from_u128(number),
        topic: topic.to_owned(),
        body: format!("message {number}").into_bytes(),
    }
}

pub(super) fn run(number: u128, graph: &'static str, status: RunStatus) -> RunMark {
    RunMark {
        run: RunId::from(Uuid::from_u128(number)),
        graph: graph.into(),
        status,
        error: None,
    }
}

/// A commit with some of everything, its checkpoint made from the number.
pub(super) fn everything(number: u32) -> Commit {
    Commit {
        checkpoint: Some(checkpoint(number)),
        parent: None,
        records: vec![
            record("a", RecordKind::Output, "", "one"),
            record("b", RecordKind::Question, "why", "two"),
        ],
        run: Some(run(u128::from(number), "graph", RunStatus::Running)),
        outbox: vec![
            message(u128::from(number), "topic"),
            message(1 << 64 | u128::from(number), "topic"),
        ],
    }
}

/// A claimed thread and what its writer knows of it.
pub(super) struct Hand<'store> {
    pub(super) store: &'store dyn Checkpointer,
    pub(super) key: ThreadKey,
    pub(super) epoch: Epoch,
    pub(super) head: Option<Seq>,
}

impl<'store> Hand<'store> {
    /// Claims a thread that has no checkpoint yet.
    pub(super) async fn new(store: &'store dyn Checkpointer, key: ThreadKey) -> Result<Self, Broken> {
        let epoch = store.claim(&key).await?;
        Ok(Self {
            store,
            key,
            epoch,
            head: None,
        })
    }

    /// A thread that has one checkpoint, made from the number 1.
    pub(super) async fn begun(store: &'store dyn Checkpointer, key: ThreadKey) -> Result<Self, Broken> {
        let mut hand = Self::new(store, key).await?;
        hand.append(1).await?;
        Ok(hand)
    }

    pub(super) async fn commit(&mut self, commit: Commit) -> Result<Option<Seq>, CheckpointError> {
        self.head = self.store.commit(&self.key, self.epoch, self.head, commit).await?;
        Ok(self.head)
    }

    pub(super) async fn write(&mut self, new: NewCheckpoint) -> Result<Seq, Broken> {
        let commit = Commit {
            checkpoint: Some(new),
            ..Commit::default()
        };
        match self.commit(commit).await? {
            Some(head) => Ok(head),
            None => broken("a commit with a checkpoint gave no head"),
        }
    }

    pub(super) async fn append(&mut self, number: u32) -> Result<Seq, Broken> {
        self.write(checkpoint(number)).await
    }

    pub(super) async fn append_state(&mut self, number: u32, payload: Payload) -> Result<Seq, Broken> {
        let new = checkpoint(number);
        self.write(NewCheckpoint { payload, ..new }).await
    }

    pub(super) async fn record(&mut self, records: Vec<TaskRecord>) -> Found {
        let commit = Commit {
            records,
            ..Commit::default()
        };
        self.commit(commit).await?;
        Ok(())
    }

    pub(super) async fn mark(&mut self, mark: RunMark) -> Found {
        let commit = Commit {
            run: Some(mark),
            ..Commit::default()
        };
        self.commit(commit).await?;
        Ok(())
    }

    pub(super) async fn send(&mut self, outbox: Vec<OutboxMessage>) -> Found {
        let commit = Commit {
            outbox,
            ..Commit::default()
        };
        self.commit(commit).await?;
        Ok(())
    }

    pub(super) async fn branch(&mut self, from: Seq, name: &str) -> Found {
        self.store.branch(&self.key, self.epoch, from, name).await?;
        self.head = Some(from);
        Ok(())
    }

    pub(super) async fn get(&self, at: At) -> Result<Checkpoint, Broken> {
        get(self.store, &self.key, at).await
    }
}

/// A checkpoint that must be there.
pub(super) async fn get(store: &dyn Checkpointer, key: &ThreadKey, at: At) -> Result<Checkpoint, Broken> {
    match store.get(key, at).await? {
        Some(found) => Ok(found),
        None => broken(format!("thread {key} has no checkpoint at {at:?}")),
    }
}
