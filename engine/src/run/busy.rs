//! One run at a time on each thread, within a process.

use std::sync::Arc;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::{
    id::ThreadKey,
    table::{RowId, Table},
};

/// What to do when a thread already has a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBusy {
    /// Refuse with [`RunError::Busy`](super::RunError::Busy).
    #[default]
    Reject,
    /// Wait for a turn, first come first served.
    Wait,
}

/// The threads that have a run.
#[derive(Debug, Default)]
pub(crate) struct Busy(Table<Line>);

/// Who has a thread and who waits for it. Most have nobody who waits, and need no queue.
#[derive(Debug, Default)]
struct Line {
    queue: Option<Arc<Turn<()>>>,
    /// The turn of the run that had the thread before there was a queue.
    first: Option<OwnedMutexGuard<()>>,
}

/// A thread's turn; gives it on when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    line: RowId,
    busy: Arc<Busy>,
    has: Has,
}

/// The turn of the first in a line, as long as it need not be kept apart from its [`Busy`].
#[derive(Debug)]
#[must_use = "the thread has a run until it is released"]
pub(super) struct First(RowId);

impl First {
    /// The same as a hold that releases itself.
    pub(super) fn hold(self, busy: &Arc<Busy>) -> Hold {
        Hold {
            line: self.0,
            busy: Arc::clone(busy),
            has: Has::First,
        }
    }
}

#[derive(Debug)]
enum Has {
    /// The thread, as the first in its line.
    First,
    /// A place in its queue.
    Place,
    /// Its turn there.
    Turn(OwnedMutexGuard<()>),
}

impl Busy {
    /// The thread's turn, if nobody has it.
    pub(crate) fn hold_free(self: &Arc<Self>, key: &ThreadKey) -> Option<Hold> {
        let place = self.0.place(key);
        let (line, has) = match self.0.lock(place).insert_new(place, key, |_| Line::default()) {
            (row, None) => (row, Has::First),
            (row, Some(line)) => {
                let queue = line.queue.as_ref()?;
                (row, Has::Turn(Arc::clone(queue).try_lock_owned().ok()?))
            }
        };
        Some(Hold {
            line,
            busy: Arc::clone(self),
            has,
        })
    }

    /// The thread's turn, if it has no line yet: whoever gets it is the first. It is given on by [`release`](Self::release)
    /// or as a [`Hold`].
    pub(super) fn hold_first(&self, key: &ThreadKey) -> Option<First> {
        let place = self.0.place(key);
        match self.0.lock(place).insert_new(place, key, |_| Line::default()) {
            (row, None) => Some(First(row)),
            (_, Some(_)) => None,
        }
    }

    /// Gives on the turn of the first in a line.
    pub(super) fn release(&self, First(line): First) {
        self.let_go(line, Has::First);
    }

    fn let_go(&self, line: RowId, has: Has) {
        self.0.lock_row(line).remove_unless(line, |line| {
            match has {
                Has::First => drop(line.first.take()),
                Has::Place => {}
                Has::Turn(turn) => drop(turn),
            }
            line.queue.as_ref().is_some_and(|queue| Arc::strong_count(queue) > 1)
        });
    }

    pub(crate) async fn hold(self: &Arc<Self>, key: &ThreadKey, policy: OnBusy) -> Option<Hold> {
        match policy {
            OnBusy::Reject => self.hold_free(key),
            OnBusy::Wait => Some(self.wait(key).await),
        }
    }

    async fn wait(self: &Arc<Self>, key: &ThreadKey) -> Hold {
        let place = self.0.place(key);
        let (line, queue) = match self.0.lock(place).insert_new(place, key, |_| Line::default()) {
            (row, None) => (row, None),
            (row, Some(line)) => (row, Some(line.join())),
        };
        // Made before waiting, so that a dropped wait cleans up as well.
        let mut hold = Hold {
            line,
            busy: Arc::clone(self),
            has: if queue.is_some() { Has::Place } else { Has::First },
        };
        if let Some(queue) = queue {
            hold.has = Has::Turn(queue.lock_owned().await);
        }
        hold
    }
}

impl Line {
    /// The queue. Whoever had the thread without one has the first turn there.
    fn join(&mut self) -> Arc<Turn<()>> {
        let queue = self.queue.get_or_insert_with(|| {
            let queue = Arc::<Turn<()>>::default();
            self.first = Arc::clone(&queue).try_lock_owned().ok();
            queue
        });
        Arc::clone(queue)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let has = std::mem::replace(&mut self.has, Has::Place);
        self.busy.let_go(self.line, has);
    }
}
