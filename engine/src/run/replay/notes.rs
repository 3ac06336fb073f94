//! What a step's tasks are given from the record while they are replayed, and what they did otherwise.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use uuid::Uuid;

use super::difference::Difference;
use crate::{
    checkpoint::{
        At, Branch, Checkpoint, CheckpointError, CheckpointInfo, Checkpointer, Commit, Epoch, OutboxMessage, Page,
        RecordKind, Seq, TaskRecord,
    },
    id::{Namespace, ThreadKey},
    node::{Entry, NodeError},
    state::StateError,
};

/// The record of one step, and the differences found in it.
pub(crate) struct Notes {
    /// Where the threads of graphs inside stand.
    pub(crate) store: Arc<dyn Checkpointer>,
    entries: Mutex<HashMap<String, Entry>>,
    differences: Mutex<Vec<(String, Difference)>>,
    /// How many nodes of graphs inside were entered.
    inside: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a node that is replayed fails with, so that it goes no further.
#[derive(Debug, thiserror::Error)]
#[error("the replay has diverged from the record")]
struct Diverged;

impl Notes {
    pub(crate) fn of(store: Arc<dyn Checkpointer>, records: &[TaskRecord]) -> Result<Self, StateError> {
        let calls = records.iter().filter(|record| record.kind == RecordKind::Calls);
        let entry = |record: &TaskRecord| Ok((record.task.clone(), crate::run::decode_record(&record.body)?));
        Ok(Self {
            store,
            entries: Mutex::new(calls.map(entry).collect::<Result<_, StateError>>()?),
            differences: Mutex::new(Vec::new()),
            inside: AtomicU64::new(0),
        })
    }

    /// Whether a task's calls are known, all of them.
    pub(crate) fn knows(&self, task: &str) -> bool {
        locked(&self.entries).get(task).is_some_and(|entry| !entry.cut)
    }

    /// Whether a task's output came from the node cache.
    pub(crate) fn is_cached(&self, task: &str) -> bool {
        locked(&self.entries).get(task).is_some_and(|entry| entry.cached)
    }

    /// Takes the record of a task about to be entered.
    pub(crate) fn take(&self, task: &str) -> Option<Entry> {
        locked(&self.entries).remove(task)
    }

    pub(crate) fn differ(&self, task: &str, difference: Difference) {
        locked(&self.differences).push((task.to_owned(), difference));
    }

    /// Notes a difference, and stops the node.
    pub(crate) fn diverge(&self, task: &str, difference: Difference) -> NodeError {
        self.differ(task, difference);
        NodeError::terminal(Diverged)
    }

    pub(crate) fn count_inside(&self, bodies: u64) {
        self.inside.fetch_add(bodies, Ordering::Relaxed);
    }

    pub(super) fn inner_bodies(&self) -> u64 {
        self.inside.load(Ordering::Relaxed)
    }

    /// The first thing that a task did otherwise.
    pub(crate) fn first(&self, task: &str) -> Option<Difference> {
        let differences = locked(&self.differences);
        let own = differences.iter().find(|(of, _)| of == task);
        own.map(|(_, difference)| difference.clone())
    }
}

/// A store that can be read and takes nothing.
pub(super) struct Sealed(pub(super) Arc<dyn Checkpointer>);

fn sealed<T>() -> Result<T, CheckpointError> {
    Err(CheckpointError::Unavailable {
        message: "a replay writes nothing".to_owned(),
        source: None,
    })
}

#[async_trait]
impl Checkpointer for Sealed {
    async fn claim(&self, _: &ThreadKey) -> Result<Epoch, CheckpointError> {
        sealed()
    }

    async fn commit(&self, _: &ThreadKey, _: Epoch, _: Option<Seq>, _: Commit) -> Result<Option<Seq>, CheckpointError> {
        sealed()
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        self.0.get(key, at).await
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        self.0.list(key, page).await
    }

    async fn branch(&self, _: &ThreadKey, _: Epoch, _: Seq, _: &str) -> Result<(), CheckpointError> {
        sealed()
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        self.0.branches(key).await
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        self.0.inner(key, after, limit).await
    }

    async fn delete(&self, _: &ThreadKey) -> Result<(), CheckpointError> {
        sealed()
    }

    async fn unfinished(&self, _: &str, _: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        sealed()
    }

    async fn outbox(&self, _: &str, _: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        sealed()
    }

    async fn acknowledge(&self, _: &ThreadKey, _: Uuid) -> Result<(), CheckpointError> {
        sealed()
    }
}
