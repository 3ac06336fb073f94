//! The real store, with points to die at around its calls.

use std::sync::Arc;

use async_trait::async_trait;
use stepgraph::{
    CheckpointError, Checkpointer, Namespace, ThreadKey,
    checkpoint::{
        At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, RecordKind, Seq, StoreDurability,
    },
};
use uuid::Uuid;

use super::{
    fate::{Call, Reaper},
    ledger::Ledger,
};

pub(super) struct Mortal {
    pub(super) inner: Arc<dyn Checkpointer>,
    pub(super) reaper: Arc<Reaper>,
    pub(super) ledger: Ledger,
}

#[async_trait]
impl Checkpointer for Mortal {
    fn durability(&self) -> StoreDurability {
        self.inner.durability()
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.reaper.call(Call::Claim, self.inner.claim(key)).await
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let call = Call::of(&commit);
        let outputs = commit.records.iter().filter(|record| record.kind == RecordKind::Output);
        let outputs: Vec<_> = outputs.map(|record| record.task.clone()).collect();
        let work = async {
            let head = self.inner.commit(key, epoch, expected, commit).await?;
            for task in outputs {
                self.ledger.write("recorded", &task);
            }
            Ok(head)
        };
        self.reaper.call(call, work).await
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        self.inner.get(key, at).await
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        self.inner.list(key, page).await
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        self.inner.branch(key, epoch, from, name).await
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        self.inner.branches(key).await
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        self.inner.inner(key, after, limit).await
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        self.inner.delete(key).await
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        self.inner.unfinished(graph, limit).await
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        self.inner.outbox(topic, limit).await
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        self.inner.acknowledge(key, message).await
    }
}
