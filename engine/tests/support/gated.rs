//! A store over `Memory` that keeps a log of its commits, holds them up while a gate is shut, and fails where it is told.

use std::sync::{Arc, Mutex};

use stepgraph::{
    CheckpointError, Checkpointer, Memory, ThreadKey, async_trait,
    checkpoint::{AroundStore, Commit, Epoch, RecordKind, RunStatus, Seq, StoreDurability},
};
use tokio::sync::watch;

/// What a commit has written, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) namespace: String,
    /// The step of the checkpoint, if it made one.
    pub(crate) step: Option<i64>,
    pub(crate) records: Vec<(String, RecordKind)>,
    pub(crate) status: Option<RunStatus>,
}

#[derive(Debug, Clone)]
pub(crate) struct Gated {
    memory: Arc<Memory>,
    gate: watch::Sender<usize>,
    log: Arc<Mutex<Vec<Written>>>,
    fail_at: Arc<Mutex<Option<usize>>>,
    tried: watch::Sender<usize>,
    durability: StoreDurability,
}

impl Gated {
    pub(crate) fn new() -> Self {
        Self {
            memory: Arc::default(),
            gate: watch::Sender::new(usize::MAX),
            log: Arc::default(),
            fail_at: Arc::default(),
            tried: watch::Sender::new(0),
            durability: StoreDurability::Machine,
        }
    }

    /// Lets so many commits through, counted from the first; later ones wait.
    pub(crate) fn allow(&self, commits: usize) {
        self.gate.send_replace(commits);
    }

    pub(crate) fn open(&self) {
        self.allow(usize::MAX);
    }

    /// The commit of this number, counted from 1, fails.
    pub(crate) fn fail_at(&self, commit: usize) {
        *self.fail_at.lock().unwrap() = Some(commit);
    }

    pub(crate) fn promise(mut self, durability: StoreDurability) -> Self {
        self.durability = durability;
        self
    }

    /// What was written, oldest first.
    pub(crate) fn log(&self) -> Vec<Written> {
        self.log.lock().unwrap().clone()
    }

    /// The steps of the checkpoints that were written at the root.
    pub(crate) fn steps(&self) -> Vec<i64> {
        let log = self.log();
        let root = log.into_iter().filter(|written| written.namespace.is_empty());
        root.filter_map(|written| written.step).collect()
    }

    /// Waits until so many commits have been tried.
    pub(crate) async fn tried(&self, commits: usize) {
        let mut tried = self.tried.subscribe();
        tried.wait_for(|tried| *tried >= commits).await.unwrap();
    }
}

#[async_trait]
impl AroundStore for Gated {
    fn within(&self) -> &dyn Checkpointer {
        &*self.memory
    }

    fn durability(&self) -> StoreDurability {
        self.durability
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let number = self.tried.borrow().wrapping_add(1);
        self.tried.send_replace(number);
        let mut gate = self.gate.subscribe();
        drop(gate.wait_for(|allowed| number <= *allowed).await);
        tokio::task::yield_now().await;
        if *self.fail_at.lock().unwrap() == Some(number) {
            return Err(CheckpointError::Unavailable {
                message: "the disk is gone".to_owned(),
                source: None,
            });
        }
        let written = Written {
            namespace: key.namespace.as_str().to_owned(),
            step: commit.checkpoint.as_ref().map(|checkpoint| checkpoint.step),
            records: commit
                .records
                .iter()
                .map(|record| (record.task.clone(), record.kind))
                .collect(),
            status: commit.run.as_ref().map(|run| run.status),
        };
        let head = self.within().commit(key, epoch, expected, commit).await?;
        self.log.lock().unwrap().push(written);
        Ok(head)
    }
}
