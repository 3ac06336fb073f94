//! Which checkpoints are known by number, so that most commits need no read before them.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use stepgraph::{
    ThreadKey,
    checkpoint::{Epoch, Seq},
};
use uuid::Uuid;

use super::keys::KeyId;

/// Most threads remembered at a time, twice: what was used last, and what was used before.
const REMEMBERED_MAX: usize = 2048;

/// A checkpoint as those who write upon it must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its name, which what is written upon it is bound to.
    pub(super) id: Uuid,
    /// The key that it was sealed with: the names of its records are made with the same, so that a later record finds the
    /// one it replaces after keys have changed.
    pub(super) key: KeyId,
}

type Known = HashMap<ThreadKey, (Epoch, Seq, Standing)>;

/// The newest checkpoint of threads that are written to. It holds for the epoch in which it was seen: while that one lasts,
/// a thread cannot be deleted and made anew with the same numbers.
#[derive(Debug, Default)]
pub(super) struct Standings(Mutex<(Known, Known)>);

impl Standings {
    fn lock(&self) -> MutexGuard<'_, (Known, Known)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &ThreadKey, epoch: Epoch, seq: Seq) -> Option<Standing> {
        let known = self.lock();
        let (seen, number, standing) = known.0.get(key).or_else(|| known.1.get(key))?;
        (*seen == epoch && *number == seq).then_some(*standing)
    }

    pub(super) fn put(&self, key: &ThreadKey, epoch: Epoch, seq: Seq, standing: Standing) {
        let mut known = self.lock();
        if let Some(place) = known.0.get_mut(key) {
            *place = (epoch, seq, standing);
            return;
        }
        if known.0.len() >= REMEMBERED_MAX {
            known.1 = mem::take(&mut known.0);
        }
        known.0.insert(key.clone(), (epoch, seq, standing));
    }
}
