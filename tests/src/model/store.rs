//! A store that goes down when it is told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use stepgraph::{
    CheckpointError, Checkpointer, ThreadKey,
    checkpoint::{AroundStore, At, Checkpoint, Commit, Epoch, Seq},
};

use super::case::Crash;

/// A store over another. It never answers at once, as no real store does.
pub(super) struct Fragile {
    store: Arc<dyn Checkpointer>,
    commits: AtomicU64,
    /// The commit that goes wrong, 0 for none, and whether it is kept.
    refuse_at: AtomicU64,
    lose_at: AtomicU64,
    down: AtomicBool,
}

impl Fragile {
    pub(super) fn over(store: Arc<dyn Checkpointer>) -> Self {
        Self {
            store,
            commits: AtomicU64::new(0),
            refuse_at: AtomicU64::new(0),
            lose_at: AtomicU64::new(0),
            down: AtomicBool::new(false),
        }
    }

    /// Goes wrong once, counted from now, and stays down then.
    pub(super) fn prepare(&self, crash: Option<Crash>) {
        self.commits.store(0, Ordering::SeqCst);
        let (refuse, lose) = match crash {
            Some(Crash::Refuse(at)) => (at, 0),
            Some(Crash::Lose(at)) => (0, at),
            Some(Crash::Drop(_)) | None => (0, 0),
        };
        self.refuse_at.store(refuse, Ordering::SeqCst);
        self.lose_at.store(lose, Ordering::SeqCst);
        self.down.store(false, Ordering::SeqCst);
    }

    /// Whether it went down; it is up again.
    pub(super) fn was_down(&self) -> bool {
        let down = self.down.load(Ordering::SeqCst);
        self.prepare(None);
        down
    }

    fn refused(&self) -> CheckpointError {
        self.down.store(true, Ordering::SeqCst);
        CheckpointError::Unavailable {
            message: "the store is down".to_owned(),
            source: None,
        }
    }

    async fn enter(&self) -> Result<(), CheckpointError> {
        tokio::task::yield_now().await;
        if self.down.load(Ordering::SeqCst) {
            return Err(self.refused());
        }
        Ok(())
    }
}

#[async_trait]
impl AroundStore for Fragile {
    fn within(&self) -> &dyn Checkpointer {
        &*self.store
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.enter().await?;
        self.within().claim(key).await
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        self.enter().await?;
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.refuse_at.load(Ordering::SeqCst) {
            return Err(self.refused());
        }
        let head = self.within().commit(key, epoch, expected, commit).await?;
        // A run may be dropped here, where the commit is kept and nobody has heard of it.
        tokio::task::yield_now().await;
        if number == self.lose_at.load(Ordering::SeqCst) {
            return Err(self.refused());
        }
        Ok(head)
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        self.enter().await?;
        self.within().get(key, at).await
    }
}
