//! One run at a time on each thread, within a process.

use std::sync::Arc;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::{
    id::ThreadKey,
    table::{Keyed, Place, Table},
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
#[derive(Debug)]
struct Line {
    key: ThreadKey,
    /// Tells it from others that its thread has had.
    number: u64,
    queue: Option<Arc<Turn<()>>>,
    /// The turn of the run that had the thread before there was a queue.
    first: Option<OwnedMutexGuard<()>>,
}

/// A line, found again without its key.
#[derive(Debug, Clone, Copy)]
struct LineId {
    place: Place,
    number: u64,
}

/// A thread's turn; gives it on when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    line: LineId,
    busy: Arc<Busy>,
    has: Has,
}

/// The turn of the first in a line, as long as it need not be kept apart from its [`Busy`].
#[derive(Debug)]
#[must_use = "the thread has a run until it is released"]
pub(super) struct First(LineId);

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
        let (line, has) = self.enter(key, |line| {
            let queue = line.map(|line| line.queue.as_ref());
            match queue {
                None => Some(Has::First),
                Some(queue) => Some(Has::Turn(Arc::clone(queue?).try_lock_owned().ok()?)),
            }
        });
        let has = has?;
        Some(Hold {
            line,
            busy: Arc::clone(self),
            has,
        })
    }

    /// The thread's turn, if it has no line yet: whoever gets it is the first. It is given on by [`release`](Self::release)
    /// or as a [`Hold`].
    pub(super) fn hold_first(&self, key: &ThreadKey) -> Option<First> {
        let (line, first) = self.enter(key, |line| line.is_none());
        first.then_some(First(line))
    }

    /// Looks at a thread's line, which `look` is given if it was there; otherwise it is made.
    fn enter<T>(&self, key: &ThreadKey, look: impl FnOnce(Option<&mut Line>) -> T) -> (LineId, T) {
        let place = self.0.place(key);
        let mut made = 0;
        let mut part = self.0.lock(place);
        let found = part.insert_new(place, key, |number| {
            made = number;
            Line {
                key: key.clone(),
                number,
                queue: None,
                first: None,
            }
        });
        let number = found.as_ref().map_or(made, |line| line.number);
        (LineId { place, number }, look(found))
    }

    /// Gives on the turn of the first in a line.
    pub(super) fn release(&self, First(line): First) {
        self.let_go(line, Has::First);
    }

    fn let_go(&self, LineId { place, number }: LineId, has: Has) {
        let is = |line: &Line| line.number == number;
        self.0.lock(place).remove_unless(place, is, |line| {
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
        let (line, queue) = self.enter(key, |line| line.map(Line::join));
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

impl Keyed for Line {
    fn key(&self) -> &ThreadKey {
        &self.key
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
