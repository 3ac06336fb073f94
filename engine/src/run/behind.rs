//! How durable a run's steps are: what is written at once, what is written beside the next step, what is held back.
//!
//! A run is never more than one checkpoint ahead of its store but in [`Durability::Exit`]. Whoever writes facts about the
//! step under way (an effect's result, a question) first waits until the checkpoint that the step begins at is there:
//! the facts refer to it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    task::AbortHandle,
};

use super::{barrier::Sizes, error::RunError};
use crate::{
    checkpoint::{CheckpointError, Checkpointer, Commit, Epoch, Line, NewCheckpoint, Seq, TaskRecord},
    id::ThreadKey,
    node::RunContext,
    state::Changes,
};

/// When the steps of a run are durable. Its admission, its questions, its end and the results of
/// [`Context::once`](crate::Context::once) are durable at once in every mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Each step is durable before it is told and before the next begins.
    #[default]
    Sync,
    /// A step is saved while the next one runs; the one after that begins only when it is durable. A crash loses at most
    /// what one step has done, which then runs again; a save that fails stops the run one step later.
    Async,
    /// Nothing is saved until the run ends, asks, stops or fails. A crash in between goes on from the admission, or from
    /// the newest step in which an effect was journaled.
    Exit,
}

/// The run's hold on its thread in the store.
pub(crate) struct StoreHandle {
    pub(crate) store: Arc<dyn Checkpointer>,
    /// The thread itself, in a store that never waits.
    line: Option<Arc<dyn Line>>,
    /// The claim under which the run began; 0 if its first commit was to claim the thread.
    pub(crate) epoch: Epoch,
    /// What that first commit has claimed.
    begun: Option<OnceLock<Epoch>>,
    /// Number of the newest checkpoint, 0 for none. Written by the driver, or by the write it has started.
    head: AtomicU64,
    pub(crate) durability: Durability,
    /// What is not written yet; `None` where everything is written at once.
    pub(super) behind: Option<Behind>,
}

/// What is written behind the run's back. Whoever has the turn may look at it; a write under way keeps the turn.
pub(super) struct Behind {
    pub(super) turn: Arc<Turn<Unwritten>>,
    writing: Mutex<Option<AbortHandle>>,
}

/// How far the newest checkpoint has come.
#[derive(Default)]
pub(super) enum Unwritten {
    #[default]
    Nothing,
    /// It is held back until somebody needs it.
    Held(Box<dyn Held>),
    /// Somebody writes it; found by one who has the turn, it was not written to its end.
    UnderWay,
    Written(Sizes),
    Failed(Option<RunError>),
}

/// A checkpoint that is not encoded yet.
pub(super) trait Held: Send {
    fn encode(self: Box<Self>) -> Result<Ready, RunError>;

    /// Gives up what has changed since the newest checkpoint that was written.
    fn into_changes(self: Box<Self>) -> Changes;
}

/// Tells that a checkpoint is there, under its number.
pub(super) type Tell = Box<dyn FnOnce(Arc<RunContext>, Option<Seq>) -> Telling + Send>;
type Telling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A checkpoint to be written, and how that is told.
pub(super) struct Ready {
    pub(super) checkpoint: NewCheckpoint,
    pub(super) sizes: Sizes,
    /// What is said of the step before it.
    pub(super) records: Vec<TaskRecord>,
    pub(super) tell: Option<Tell>,
}

impl StoreHandle {
    pub(crate) fn new(store: Arc<dyn Checkpointer>, epoch: Epoch, head: Option<Seq>, durability: Durability) -> Self {
        let behind = (durability != Durability::Sync).then(|| Behind {
            turn: Arc::default(),
            writing: Mutex::default(),
        });
        Self {
            store,
            line: None,
            epoch,
            begun: None,
            head: AtomicU64::new(head.map_or(0, |Seq(seq)| seq)),
            durability,
            behind,
        }
    }

    /// A hold on a thread that is not there yet: the first commit takes it.
    pub(super) fn unclaimed(store: Arc<dyn Checkpointer>, durability: Durability) -> Self {
        Self {
            begun: Some(OnceLock::new()),
            ..Self::new(store, Epoch(0), None, durability)
        }
    }

    /// With the thread itself, if its store never waits.
    pub(super) fn with_line(mut self, line: Option<Arc<dyn Line>>) -> Self {
        self.line = line;
        self
    }

    /// The thread itself, where a checkpoint may be written without waiting for anything.
    #[inline]
    pub(super) fn at_once(&self) -> Option<&dyn Line> {
        self.line.as_deref().filter(|_| self.behind.is_none())
    }

    /// Writes to the thread under the run's claim, behind the head that the run knows.
    pub(crate) async fn commit(&self, key: &ThreadKey, commit: Commit) -> Result<Option<Seq>, CheckpointError> {
        let epoch = match (&self.line, &self.begun) {
            (Some(line), _) => return line.commit(key, self.epoch, self.head(), commit),
            (None, None) => self.epoch,
            (None, Some(begun)) => {
                let Some(epoch) = begun.get() else {
                    // The admission, which the run waits for before anything else is written.
                    let (epoch, head) = self.store.begin(key, self.head(), commit).await?;
                    let _ = begun.set(epoch);
                    return Ok(head);
                };
                *epoch
            }
        };
        self.store.commit(key, epoch, self.head(), commit).await
    }

    #[inline]
    pub(crate) fn head(&self) -> Option<Seq> {
        Some(self.head.load(Ordering::Acquire))
            .filter(|head| *head > 0)
            .map(Seq)
    }

    #[inline]
    pub(super) fn move_head(&self, head: Option<Seq>) {
        self.head.store(head.map_or(0, |Seq(seq)| seq), Ordering::Release);
    }

    fn stop_writing(&self) {
        if let Some(behind) = &self.behind {
            let writing = behind.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(writing) = writing {
                writing.abort();
            }
        }
    }
}

impl Behind {
    /// Writes in a task of its own, so that whoever waits for it can stop waiting without cutting it off. One at a time:
    /// it keeps the turn.
    pub(super) fn begin(&self, run: &Arc<RunContext>, turn: OwnedMutexGuard<Unwritten>, ready: Ready) {
        let writing = tokio::spawn(write(Arc::clone(run), turn, ready));
        *self.writing.lock().unwrap_or_else(PoisonError::into_inner) = Some(writing.abort_handle());
    }
}

async fn write(run: Arc<RunContext>, mut turn: OwnedMutexGuard<Unwritten>, ready: Ready) {
    *turn = Unwritten::UnderWay;
    let Some(handle) = &run.store else { return };
    let commit = Commit {
        checkpoint: Some(ready.checkpoint),
        records: ready.records,
        ..Commit::default()
    };
    match handle.commit(&run.key, commit).await {
        Ok(head) => {
            handle.move_head(head);
            if let Some(tell) = ready.tell {
                tell(Arc::clone(&run), head).await;
            }
            *turn = Unwritten::Written(ready.sizes);
        }
        Err(error) => *turn = Unwritten::Failed(Some(error.into())),
    }
}

/// What is said when the error itself has gone elsewhere.
pub(super) fn unsaved(message: &str) -> RunError {
    CheckpointError::Unavailable {
        message: format!("an earlier step of the run could not be saved: {message}"),
        source: None,
    }
    .into()
}

impl RunContext {
    /// Whether its checkpoints are held back.
    #[inline]
    pub(super) fn holds_back(&self) -> bool {
        self.store
            .as_ref()
            .is_some_and(|handle| handle.durability == Durability::Exit)
    }

    /// Waits until nothing is left to write, writing what is held back. `None` where everything is written at once.
    pub(super) async fn caught_up(self: &Arc<Self>) -> Option<OwnedMutexGuard<Unwritten>> {
        let behind = self.store.as_ref()?.behind.as_ref()?;
        loop {
            let mut turn = Arc::clone(&behind.turn).lock_owned().await;
            match std::mem::take(&mut *turn) {
                Unwritten::Held(held) => match held.encode() {
                    Ok(ready) => behind.begin(self, turn, ready),
                    Err(error) => *turn = Unwritten::Failed(Some(error)),
                },
                Unwritten::UnderWay => *turn = Unwritten::Failed(Some(unsaved("its write ended early"))),
                other => {
                    *turn = other;
                    return Some(turn);
                }
            }
        }
    }

    /// Waits until the checkpoint that the step under way begins at is durable, here and in the graphs around this one.
    ///
    /// # Errors
    /// It could not be saved: the run is about to stop.
    pub(crate) async fn settled(self: &Arc<Self>) -> Result<(), RunError> {
        let mut next = Some(self);
        while let Some(run) = next {
            if let Some(turn) = run.caught_up().await
                && let Unwritten::Failed(error) = &*turn
            {
                // The error itself is the driver's to tell.
                return Err(unsaved(&error.as_ref().map(ToString::to_string).unwrap_or_default()));
            }
            next = run.outer.as_ref().map(|host| &host.run);
        }
        Ok(())
    }
}

/// Cuts off what is written when the run is dropped.
pub(crate) struct Writes(Arc<RunContext>);

impl Writes {
    /// `None` where everything is written at once.
    #[inline]
    pub(super) fn of(run: &Arc<RunContext>) -> Option<Self> {
        let behind = run.store.as_ref().is_some_and(|handle| handle.behind.is_some());
        behind.then(|| Self(Arc::clone(run)))
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        if let Some(handle) = &self.0.store {
            handle.stop_writing();
        }
    }
}
