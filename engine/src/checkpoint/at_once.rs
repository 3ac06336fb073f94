//! Stores that never wait.

use std::sync::Arc;

use super::{CheckpointError, Commit, Epoch, NewCheckpoint, RunMark, Seq};
use crate::id::ThreadKey;

/// A store that never waits: it answers at once, out of this process. A [`Checkpointer`](super::Checkpointer) that is
/// one says so by [`at_once`](super::Checkpointer::at_once), and a run then saves its steps without a future for each.
///
/// Everything means the same as the methods of these names there. A store that stands before another, to count or to
/// break, need not be one: what it does not say is asked of its own methods.
///
/// ```
/// # use std::sync::Arc;
/// # use stepgraph::{Memory, TenantId, ThreadId, ThreadKey, checkpoint::{Checkpointer, Commit, CheckpointError}};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Memory::new();
/// let key = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::new("t")?);
/// let store = store.at_once().ok_or("it waits")?;
/// let (epoch, line) = store.claim_new(&key)?.ok_or("it is there")?;
/// assert_eq!(line.commit(&key, epoch, None, Commit::default())?, None);
/// let (_, same) = store.claim(&key)?;
/// let fenced = same.commit(&key, epoch, None, Commit::default());
/// assert!(matches!(fenced, Err(CheckpointError::Fenced { .. })));
/// # Ok(()) }
/// ```
pub trait AtOnce: Send + Sync {
    /// Takes a thread, and makes it if it is not there.
    fn claim(&self, key: &ThreadKey) -> Result<Claim, CheckpointError>;

    /// Makes a thread and takes it. `None` if it is there already: it is left as it is.
    fn claim_new(&self, key: &ThreadKey) -> Result<Option<Claim>, CheckpointError>;
}

/// What a claim gives: the epoch to write under, and the thread.
pub type Claim = (Epoch, Arc<dyn Line>);

/// One thread in a store that never waits: what was looked up by the claim is not looked up again.
pub trait Line: Send + Sync {
    /// Writes everything in `commit`, or nothing: `key` is the thread's own. A thread that was deleted since it was
    /// claimed is [`CheckpointError::Fenced`].
    fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError>;

    /// The same of what most commits are: a checkpoint upon the head, and how far the run has come if that changes.
    fn extend(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        checkpoint: NewCheckpoint,
        run: Option<RunMark>,
    ) -> Result<Option<Seq>, CheckpointError> {
        let commit = Commit {
            checkpoint: Some(checkpoint),
            run,
            ..Commit::default()
        };
        self.commit(key, epoch, expected, commit)
    }
}
