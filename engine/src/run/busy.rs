//! One run at a time on each thread, within a process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::id::ThreadKey;

/// What to do when a thread already has a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBusy {
    /// Refuse with [`RunError::Busy`](super::RunError::Busy).
    #[default]
    Reject,
    /// Wait for a turn, first come first served.
    Wait,
}

/// The threads that have a run, each with its queue.
#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<HashMap<ThreadKey, Arc<Turn<()>>>>);

/// A thread's turn; gives it on when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    key: ThreadKey,
    busy: Arc<Busy>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Busy {
    pub(crate) async fn hold(self: &Arc<Self>, key: &ThreadKey, policy: OnBusy) -> Option<Hold> {
        let turn = Arc::clone(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key.clone())
                .or_default(),
        );
        // Made before waiting, so that a dropped wait cleans up as well.
        let mut hold = Hold {
            key: key.clone(),
            busy: Arc::clone(self),
            turn: None,
        };
        hold.turn = Some(match policy {
            OnBusy::Reject => turn.try_lock_owned().ok()?,
            OnBusy::Wait => turn.lock_owned().await,
        });
        Some(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.turn.take());
        let mut threads = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            threads.remove(&self.key);
        }
    }
}
