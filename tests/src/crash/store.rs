//! The real store, with points to die at around its calls.

use std::sync::Arc;

use async_trait::async_trait;
use stepgraph::{
    CheckpointError, Checkpointer, ThreadKey,
    checkpoint::{AroundStore, Commit, Epoch, RecordKind, Seq},
};

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
impl AroundStore for Mortal {
    fn within(&self) -> &dyn Checkpointer {
        &*self.inner
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.reaper.call(Call::Claim, self.within().claim(key)).await
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
            let head = self.within().commit(key, epoch, expected, commit).await?;
            for task in outputs {
                self.ledger.write("recorded", &task);
            }
            Ok(head)
        };
        self.reaper.call(call, work).await
    }
}
