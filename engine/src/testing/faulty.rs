//! A store with accidents.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;

use crate::{
    checkpoint::{AroundStore, At, Checkpoint, CheckpointError, Checkpointer, Commit, Epoch, Payload, RecordKind, Seq},
    id::ThreadKey,
};

/// A checkpointer over another that fails where it is told, and counts. It never answers at once, as no real store does.
/// Clones are the same store.
#[derive(Debug)]
pub struct FaultyStore<C>(Arc<Inner<C>>);

#[derive(Debug)]
struct Inner<C> {
    store: C,
    calls: AtomicU64,
    commits: AtomicU64,
    struck: AtomicU64,
    /// The call that fails, the commit that does, and the one whose answer is lost; 0 for none.
    fail_at: AtomicU64,
    fail_commit_at: AtomicU64,
    lose_at: AtomicU64,
    bytes: AtomicU64,
    effects: Mutex<Effects>,
}

/// How often the end of an effect was recorded: by thread, head, task and key.
type Effects = BTreeMap<(ThreadKey, Option<Seq>, String, String), u32>;

impl<C> Clone for FaultyStore<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Checkpointer + Default> Default for FaultyStore<C> {
    fn default() -> Self {
        Self::over(C::default())
    }
}

impl<C: Checkpointer> FaultyStore<C> {
    /// A store without accidents yet.
    pub fn over(store: C) -> Self {
        Self(Arc::new(Inner {
            store,
            calls: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            fail_at: AtomicU64::new(0),
            fail_commit_at: AtomicU64::new(0),
            lose_at: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            effects: Mutex::default(),
        }))
    }

    /// The call of this number, counted from 1 over the store's whole life, fails before it does anything; no other does.
    pub fn fail_at(&self, call: u64) {
        self.0.fail_at.store(call, Ordering::SeqCst);
    }

    /// The commit of this number fails before it does anything; no other does.
    pub fn fail_commit_at(&self, commit: u64) {
        self.0.fail_commit_at.store(commit, Ordering::SeqCst);
    }

    /// The commit of this number is kept, and fails all the same: its answer is lost.
    pub fn lose_answer_at(&self, commit: u64) {
        self.0.lose_at.store(commit, Ordering::SeqCst);
    }

    /// How many calls it had, to claim, commit and get.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// How many of them were commits.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::SeqCst)
    }

    /// How many bytes of states and records were kept: what its threads cost, whatever the store below adds to each row.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::SeqCst)
    }

    /// How often it has failed as it was told.
    #[must_use]
    pub fn accidents(&self) -> u64 {
        self.0.struck.load(Ordering::SeqCst)
    }

    /// The ends of effects that were recorded: thread, task and key, each with how often. More than once is a mistake of the
    /// engine: an effect whose end was durable has run again.
    #[must_use]
    pub fn effects(&self) -> Vec<(ThreadKey, String, String, u32)> {
        let effects = self.recorded();
        let each = effects.iter();
        each.map(|((thread, _, task, key), times)| (thread.clone(), task.clone(), key.clone(), *times))
            .collect()
    }

    fn recorded(&self) -> MutexGuard<'_, Effects> {
        self.0.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self) -> Result<(), CheckpointError> {
        tokio::task::yield_now().await;
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if call == self.0.fail_at.load(Ordering::SeqCst) {
            return Err(self.strike("it was told to fail"));
        }
        Ok(())
    }

    fn strike(&self, message: &str) -> CheckpointError {
        self.0.struck.fetch_add(1, Ordering::SeqCst);
        CheckpointError::Unavailable {
            message: message.to_owned(),
            source: None,
        }
    }
}

/// The bytes of the state and the records that a commit brings.
fn weight(commit: &Commit) -> u64 {
    let state = commit
        .checkpoint
        .as_ref()
        .map_or(0, |checkpoint| match &checkpoint.payload {
            Payload::Snapshot(bytes) | Payload::Delta(bytes) => bytes.len(),
        });
    let records: usize = commit.records.iter().map(|record| record.body.len()).sum();
    u64::try_from(state + records).unwrap_or(u64::MAX)
}

#[async_trait]
impl<C: Checkpointer> AroundStore for FaultyStore<C> {
    fn within(&self) -> &dyn Checkpointer {
        &self.0.store
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
        let number = self.0.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.0.fail_commit_at.load(Ordering::SeqCst) {
            return Err(self.strike("it was told to fail"));
        }
        let bytes = weight(&commit);
        let ends = commit.records.iter().filter(|record| record.kind == RecordKind::Effect);
        let ends: Vec<_> = ends
            .map(|record| (key.clone(), expected, record.task.clone(), record.key.clone()))
            .collect();
        let head = self.within().commit(key, epoch, expected, commit).await?;
        self.0.bytes.fetch_add(bytes, Ordering::SeqCst);
        for end in ends {
            *self.recorded().entry(end).or_default() += 1;
        }
        // A run may be dropped here, where the commit is kept and nobody has heard of it.
        tokio::task::yield_now().await;
        if number == self.0.lose_at.load(Ordering::SeqCst) {
            return Err(self.strike("the answer to a commit is lost"));
        }
        Ok(head)
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        self.enter().await?;
        self.within().get(key, at).await
    }
}
