//! Checkpoints: what a thread keeps, and the trait of the stores that keep it.
//!
//! A store knows bytes, numbers and names; it never sees a state's type. Its one write verb is [`Checkpointer::commit`]:
//! task records, a new checkpoint and outbox messages in one transaction, refused unless the writer holds the thread's
//! newest epoch and has seen its head.

mod around;
mod at_once;
mod error;
mod memory;
mod retention;

use std::{borrow::Cow, fmt, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    around::AroundStore,
    at_once::{AtOnce, Claim, Line},
    error::CheckpointError,
    memory::Memory,
    retention::{Keep, Thinned, thin, thin_tenant},
};
use crate::id::{Namespace, RunId, TenantId, ThreadId, ThreadKey};

/// Number of a checkpoint inside its thread and namespace, counted from 1 in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// How many times a thread has been claimed. A commit under an older epoch than the newest is fenced off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Why a checkpoint was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointSource {
    /// New input was merged.
    Input,
    /// A step ended.
    Step,
    /// The state was edited from outside.
    Update,
    /// A branch was begun.
    Fork,
}

/// How far a thread's newest run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Steps are left to run; after a crash, somebody should resume it.
    Running,
    /// It waits for answers.
    Asked,
    /// It was stopped at a step's end or by cancellation and may be resumed.
    Stopped,
    /// It ended.
    Done,
    /// A task failed for good; it may be resumed.
    Failed,
}

/// The run a commit belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMark {
    /// Its id.
    pub run: RunId,
    /// Name of its graph.
    pub graph: Cow<'static, str>,
    /// How far it has come.
    pub status: RunStatus,
    /// What failed, in words, when it failed.
    pub error: Option<String>,
}

/// The state in a checkpoint's own row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The whole state.
    Snapshot(Arc<[u8]>),
    /// The effects of the step, to be laid over the parent's state.
    Delta(Arc<[u8]>),
}

impl Payload {
    /// The bytes, whichever kind they are.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        match self {
            Self::Snapshot(bytes) | Self::Delta(bytes) => bytes,
        }
    }
}

/// A checkpoint about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheckpoint {
    /// The name shown outside.
    pub id: Uuid,
    /// Number of the step that ended, -1 for the first input.
    pub step: i64,
    /// Why it is written.
    pub source: CheckpointSource,
    /// The state.
    pub payload: Payload,
    /// What is to run next, encoded by the engine.
    pub frontier: Arc<[u8]>,
    /// Fingerprint of the graph that wrote it.
    pub fingerprint: Uuid,
    /// Version of the state's stored form.
    pub state_version: u32,
    /// The engine's clock; also the recorded time of the tasks that start from here. Stores keep it to the microsecond.
    pub created_at: DateTime<Utc>,
}

/// What a task left behind inside a step that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// The task finished; the body is its update and where it goes.
    Output,
    /// The task failed for good, or was cut off.
    Failure,
    /// The task asks; the key is the question's.
    Question,
    /// The answer to a question; the key is the question's.
    Answer,
    /// An outside effect is about to be tried; the key is the effect's.
    Intent,
    /// An outside effect's result; the key is the effect's.
    Effect,
    /// Writes and destinations given to the run from outside; of no task, the key counts them.
    Command,
    /// The services that the task called, with their replies, where a graph records them.
    Calls,
    /// An attempt of the task has failed, and another follows: how many have, and when the next is due.
    Attempt,
}

impl RecordKind {
    /// Stable name, for stores that write text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Failure => "failure",
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Intent => "intent",
            Self::Effect => "effect",
            Self::Command => "command",
            Self::Calls => "calls",
            Self::Attempt => "attempt",
        }
    }

    /// The kind of a stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Output,
            Self::Failure,
            Self::Question,
            Self::Answer,
            Self::Intent,
            Self::Effect,
            Self::Command,
            Self::Calls,
            Self::Attempt,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }
}

/// A durable fact about a task of the step that starts at a checkpoint. A later record of the same task, kind and key
/// replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// The task inside its step: the node's name, and `#` with the send's index behind it for a fan-out. For a handler, its
    /// name, and `#` with the failed task behind it.
    pub task: String,
    /// What it says.
    pub kind: RecordKind,
    /// Key of the question or effect, empty otherwise.
    pub key: String,
    /// Encoded by the engine.
    pub body: Arc<[u8]>,
}

/// A message that leaves in the same transaction as a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxMessage {
    /// Fresh and unique: taking a message twice shows. A message whose id already waits in the thread is kept once.
    pub id: Uuid,
    /// Who it is for.
    pub topic: String,
    /// What it says.
    pub body: Vec<u8>,
}

/// Everything that one transaction writes to a thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The new head, if this commit makes one.
    pub checkpoint: Option<NewCheckpoint>,
    /// The older checkpoint that the new one grows from instead of the expected head: the thread goes on from there, and
    /// nothing is lost.
    pub parent: Option<Seq>,
    /// Facts about the tasks of the step that starts at the expected head.
    pub records: Vec<TaskRecord>,
    /// How far the run has come, if that changes.
    pub run: Option<RunMark>,
    /// Messages to others.
    pub outbox: Vec<OutboxMessage>,
}

/// Which checkpoint of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest of the thread's current branch.
    Head,
    /// By its number.
    Seq(Seq),
    /// By the name shown outside.
    Id(Uuid),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Seq(Seq(seq)) => write!(f, "number {seq}"),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// A checkpoint's facts, without its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its number.
    pub seq: Seq,
    /// The checkpoint it was made from.
    pub parent: Option<Seq>,
    /// The name shown outside.
    pub id: Uuid,
    /// Number of the step that ended.
    pub step: i64,
    /// Why it was written.
    pub source: CheckpointSource,
    /// The run that wrote it.
    pub run: Option<RunId>,
    /// What is to run next, encoded by the engine.
    pub frontier: Arc<[u8]>,
    /// Fingerprint of the graph that wrote it.
    pub fingerprint: Uuid,
    /// Version of the state's stored form.
    pub state_version: u32,
    /// When it was written, by the engine's clock.
    pub created_at: DateTime<Utc>,
}

/// A checkpoint with everything needed to go on from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its facts.
    pub info: CheckpointInfo,
    /// The nearest snapshot, then each delta up to this checkpoint.
    pub parts: Vec<Arc<[u8]>>,
    /// Facts about the tasks of the step that starts here, by task, kind and key.
    pub records: Vec<TaskRecord>,
    /// The thread's newest run.
    pub run: Option<RunMark>,
}

/// The branch that a thread is on before another is begun.
pub const MAIN: &str = "main";

/// A named line of a thread's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// Its newest checkpoint.
    pub head: Seq,
    /// Whether the thread is on it: the next commit moves it on.
    pub current: bool,
}

/// A name by which a checkpoint is kept, however old it grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The name, one of a kind in its thread.
    pub name: String,
    /// The checkpoint.
    pub seq: Seq,
}

/// What is taken out of a thread in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thinning {
    /// Checkpoints that are to stand on their own from now on: instead of their own payload they keep these parts, the
    /// first a snapshot, and have no parent any more.
    pub rebased: Vec<(Seq, Vec<Arc<[u8]>>)>,
    /// Checkpoints that go, with the records of the steps that started there.
    pub removed: Vec<Seq>,
}

/// Part of a thread's history, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only checkpoints older than this one.
    pub before: Option<Seq>,
    /// At most so many.
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            before: None,
            limit: 100,
        }
    }
}

/// What a finished commit of a store survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreDurability {
    /// A crash of the machine, as far as its disks keep their word.
    #[default]
    Machine,
    /// A crash of the process. A crash of the machine may take the newest commits, never part of one.
    Process,
    /// Nothing, on purpose: what it keeps lives as long as the process.
    Memory,
}

/// Keeps the checkpoints of threads.
///
/// Every method takes the [`ThreadKey`] with its tenant, or a tenant; none can reach another tenant's rows but
/// [`unfinished`](Self::unfinished) and [`outbox`](Self::outbox), which the operator's own process calls to go on after
/// a crash. `stepgraph-checkpoint` has a suite that says what "works" means; run it on a store of your own.
#[async_trait]
pub trait Checkpointer: Send + Sync + 'static {
    /// What a finished commit survives. A run of [`Durability::Sync`](crate::Durability::Sync) is refused by a store that
    /// survives a crash of the process and not one of the machine.
    fn durability(&self) -> StoreDurability {
        StoreDurability::Machine
    }

    /// This store as one that never waits, if it is one.
    fn at_once(&self) -> Option<&dyn AtOnce> {
        None
    }

    /// Takes a thread: raises its epoch, so that every commit under an older one is refused. Makes the thread if it is
    /// not there. A thread's epochs only grow, even if it is deleted and made anew in between: a worker from before stays
    /// fenced off.
    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError>;

    /// Writes everything in `commit` in one transaction, or nothing. Refused with [`CheckpointError::Fenced`] if the
    /// thread was claimed again, with [`CheckpointError::Conflict`] if `expected` is not its head.
    /// Returns the head after the commit.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any await, it has written everything or nothing; which of both shows when the thread is read again.
    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError>;

    /// Takes a thread and writes to it: how a run on a new thread begins. Refused with [`CheckpointError::Conflict`] if
    /// `expected` is not its head. Returns the claim's epoch and the head after the commit. A store that can do it in one
    /// transaction saves the run one; by itself it does one after the other, and leaves the claim where the commit is
    /// refused.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any await, it has written everything, nothing, or the claim alone.
    async fn begin(
        &self,
        key: &ThreadKey,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<(Epoch, Option<Seq>), CheckpointError> {
        let epoch = self.claim(key).await?;
        let head = self.commit(key, epoch, expected, commit).await?;
        Ok((epoch, head))
    }

    /// Reads a checkpoint in at most two queries, or `None` if the thread has none there.
    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError>;

    /// Lists a thread's checkpoints, newest first, without their states.
    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError>;

    /// Begins a branch at a checkpoint, or moves the branch of that name there, and makes it the thread's head. Later
    /// commits grow from there and move this branch; the one that the thread was on stays where it is.
    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError>;

    /// The thread's branches, by name. The one that the thread is on is at its head: [`MAIN`] until another is begun. A
    /// thread without checkpoints has none.
    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError>;

    /// Where graphs inside this thread's have threads of their own, whatever namespace `key` names: by name, only those
    /// behind `after`, at most so many. The root itself is not among them.
    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError>;

    /// Removes a thread with all its namespaces, for good.
    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError>;

    /// The root threads of a graph whose newest run is [`RunStatus::Running`], oldest first: what to resume after a
    /// crash.
    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError>;

    /// Messages of a topic that were not acknowledged yet, oldest first, with whose they are.
    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError>;

    /// Forgets a message that was delivered; unknown ids are ignored.
    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError>;

    /// Names a checkpoint, so that [`thin`](Self::thin) refuses to remove it; moves the name if the thread has it already.
    /// Without a checkpoint, the name goes, and one that is not there is ignored.
    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        let _ = (key, name, at);
        Err(CheckpointError::Unsupported { what: "tags" })
    }

    /// The thread's tags, by name.
    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        let _ = key;
        Err(CheckpointError::Unsupported { what: "tags" })
    }

    /// A tenant's threads by name, only those behind `after`, at most so many: also those that have been claimed and
    /// nothing more.
    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        let _ = (tenant, after, limit);
        Err(CheckpointError::Unsupported {
            what: "a list of threads",
        })
    }

    /// Takes checkpoints out of a thread, all of them or, with an error, none. It needs no claim and disturbs no run: heads
    /// stay. Numbers that the thread does not have are passed over; numbers are not given twice. [`thin`](fn@thin) says
    /// which checkpoints may go by which rule.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`] if a checkpoint to be removed is the head of a branch, is tagged, or is the parent of one
    /// that is neither rebased nor removed with it.
    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let _ = (key, thinning);
        Err(CheckpointError::Unsupported { what: "thinning" })
    }

    /// Removes whatever a tenant has, for good: thread by thread, so that no transaction grows with their number. What is
    /// claimed meanwhile goes too, unless it comes by name before those that have gone.
    async fn erase(&self, tenant: &TenantId) -> Result<(), CheckpointError> {
        let mut after = None;
        loop {
            let threads = self.threads(tenant, after.as_ref(), ERASED_AT_ONCE).await?;
            let Some(last) = threads.last().cloned() else {
                return Ok(());
            };
            for thread in threads {
                self.delete(&ThreadKey::new(tenant.clone(), thread)).await?;
            }
            after = Some(last);
        }
    }
}

/// How many names of threads [`Checkpointer::erase`] reads at a time.
const ERASED_AT_ONCE: u32 = 256;
