//! A store over `Memory` that counts what is written to it, and fails where it is told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use stepgraph::{
    CheckpointError, Checkpointer, Memory, Namespace, ThreadKey, async_trait,
    checkpoint::{At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, Payload, Seq},
};
use uuid::Uuid;

#[derive(Debug, Default, Clone)]
pub(crate) struct Watched {
    memory: Arc<Memory>,
    commits: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    fail_at: Arc<AtomicUsize>,
}

impl Watched {
    /// The commit of this number fails, counted from 1 over the store's whole life.
    pub(crate) fn fail_at(&self, commit: usize) {
        self.fail_at.store(commit, Ordering::SeqCst);
    }

    /// How many commits were tried.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// How many bytes of states and records were written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    fn weigh(&self, commit: &Commit) {
        let state = commit
            .checkpoint
            .as_ref()
            .map_or(0, |checkpoint| match &checkpoint.payload {
                Payload::Snapshot(bytes) | Payload::Delta(bytes) => bytes.len(),
            });
        let records: usize = commit.records.iter().map(|record| record.body.len()).sum();
        self.bytes.fetch_add(state + records, Ordering::SeqCst);
    }
}

#[async_trait]
impl Checkpointer for Watched {
    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.memory.claim(key).await
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        tokio::task::yield_now().await;
        if self.commits.fetch_add(1, Ordering::SeqCst) + 1 == self.fail_at.load(Ordering::SeqCst) {
            return Err(CheckpointError::Unavailable {
                message: "the disk is gone".to_owned(),
                source: None,
            });
        }
        self.weigh(&commit);
        self.memory.commit(key, epoch, expected, commit).await
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        self.memory.get(key, at).await
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        self.memory.list(key, page).await
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        self.memory.branch(key, epoch, from, name).await
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        self.memory.branches(key).await
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        self.memory.inner(key, after, limit).await
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        self.memory.delete(key).await
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        self.memory.unfinished(graph, limit).await
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        self.memory.outbox(topic, limit).await
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        self.memory.acknowledge(key, message).await
    }
}
