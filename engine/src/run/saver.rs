//! The driver's side of [saving](super::behind): what a checkpoint is made of, when it is written, and what is told of it.

use std::{cell::Cell, sync::Arc};

use chrono::{DateTime, Timelike, Utc};
use uuid::Uuid;

use super::{
    barrier::Sizes,
    behind::{Behind, Held, Ready, Tell, Unwritten, unsaved},
    budget::Account,
    driver::Driver,
    error::RunError,
    event::{EventKind, Sink},
    frontier::Frontier,
    guard::guarded,
    plan::{Seed, Tasks, Waiting},
};
use crate::{
    checkpoint::{CheckpointSource, Epoch, NewCheckpoint, Payload as StoredState, Seq},
    graph::{Parts, Payload},
    state::{Changes, State, StateError, hidden},
};

/// What is known of a checkpoint beside the state and the tasks.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) id: Uuid,
    pub(super) step: i64,
    pub(super) source: CheckpointSource,
    pub(super) created_at: DateTime<Utc>,
    pub(super) account: Account,
}

/// What the driver knows of checkpoints that are not written yet.
#[derive(Default)]
pub(crate) struct Late {
    /// How many checkpoints it has named.
    pub(super) saves: u32,
    /// The checkpoint that is held back, if one is.
    held: Option<Box<Mark>>,
    /// What has changed since the newest checkpoint that was written, where some are held back.
    pub(super) unwritten: Changes,
}

/// Everything a checkpoint is made of, as it was when its step ended.
struct Kept<S: State> {
    parts: Arc<Parts<S>>,
    sink: Sink<S>,
    state: Arc<S>,
    changes: Changes,
    sizes: Sizes,
    tasks: Tasks<Payload>,
    waiting: Waiting,
    mark: Mark,
}

impl<S: State> Held for Kept<S> {
    fn into_changes(self: Box<Self>) -> Changes {
        self.changes
    }

    fn encode(mut self: Box<Self>) -> Result<Ready, RunError> {
        let (parts, state, tasks) = (&self.parts, &self.state, &self.tasks);
        let checkpoint = new_checkpoint(
            parts,
            state,
            &self.changes,
            &mut self.sizes,
            tasks,
            &self.waiting,
            self.mark,
        )?;
        let tell = self
            .sink
            .is_heard()
            .then(|| tell_saved(&self.sink, saved(&self.sink, parts, state, tasks, self.mark)));
        Ok(Ready {
            checkpoint,
            sizes: self.sizes,
            // What is recorded needs every step: such a run holds none back.
            records: Vec::new(),
            tell,
        })
    }
}

/// The state as a snapshot or as what has changed since the newest checkpoint, and what is to run next.
pub(super) fn new_checkpoint<S: State>(
    parts: &Parts<S>,
    state: &S,
    changes: &Changes,
    sizes: &mut Sizes,
    tasks: &[Seed<Payload>],
    waiting: &Waiting,
    mark: Mark,
) -> Result<NewCheckpoint, RunError> {
    Ok(NewCheckpoint {
        id: mark.id,
        step: mark.step,
        source: mark.source,
        payload: stored_state(state, changes, sizes)?,
        frontier: Frontier::store(parts, tasks, waiting, mark.account)?,
        fingerprint: parts.topology.fingerprint,
        state_version: S::version(&parts.shape),
        created_at: mark.created_at,
    })
}

/// The state as a snapshot, if one is due, or as what has changed.
pub(super) fn stored_state<S: State>(
    state: &S,
    changes: &Changes,
    sizes: &mut Sizes,
) -> Result<StoredState, StateError> {
    if sizes.snapshot_due() {
        let bytes = encoded(|bytes| state.encode_to(bytes))?;
        *sizes = Sizes {
            snapshot: bytes.len().max(1),
            deltas: 0,
        };
        return Ok(StoredState::Snapshot(bytes));
    }
    let bytes = encoded(|bytes| state.encode_changes_to(changes, bytes))?;
    sizes.deltas += bytes.len();
    Ok(StoredState::Delta(bytes))
}

/// So much memory is kept between one encoding and the next.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// States are encoded here, so that only what is kept is allocated, and once.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What reducers and fields of the user's own make of a state.
fn encoded(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), StateError>) -> Result<Arc<[u8]>, StateError> {
    let mut bytes = SCRATCH.take();
    bytes.clear();
    guarded(|| encode(&mut bytes)).map_err(|panic| StateError::Encode(panic.to_string()))??;
    let kept = Arc::from(bytes.as_slice());
    if bytes.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(bytes);
    }
    Ok(kept)
}

/// The time as exact as stores keep it, so that tasks which are entered again see the same.
#[inline]
pub(super) fn to_microseconds(time: DateTime<Utc>) -> DateTime<Utc> {
    let plain = time.naive_utc();
    let exact = plain.with_nanosecond(plain.nanosecond() / 1_000 * 1_000);
    exact.unwrap_or(plain).and_utc()
}

/// How a checkpoint is told, but for its number.
pub(super) fn saved<S: State>(
    sink: &Sink<S>,
    parts: &Parts<S>,
    state: &Arc<S>,
    tasks: &[Seed<Payload>],
    mark: Mark,
) -> impl FnOnce(Option<Seq>) -> EventKind<S> + Send + use<S> {
    let next = tasks
        .iter()
        .map(|task| parts.topology.name(task.node).clone())
        .collect();
    let state = sink.hears_checkpoints().then(|| hidden(state));
    move |seq| EventKind::Saved {
        step: mark.step,
        source: mark.source,
        next,
        checkpoint: seq.map(|seq| (seq, mark.id)),
        state,
    }
}

fn tell_saved<S: State>(sink: &Sink<S>, kind: impl FnOnce(Option<Seq>) -> EventKind<S> + Send + 'static) -> Tell {
    let sink = sink.clone();
    Box::new(move |run, seq| Box::pin(async move { super::step::tell(&sink, &run, kind(seq)).await }))
}

/// A name for a checkpoint: of the run, of the claim under which it is written, and counted. Unique on its thread without
/// asking for randomness, also for two runs of one id.
pub(super) fn checkpoint_id(named: Uuid, epoch: Epoch, saves: u32) -> Uuid {
    let mut bytes = *named.as_bytes();
    if let Some((_, tail)) = bytes.split_last_chunk_mut::<8>() {
        // The number counts in the last bytes, the claim in those before, but for the two bits of the variant.
        let counted = (epoch.0 << 32) | u64::from(saves);
        *tail = u64::from_be_bytes(*tail).wrapping_add(counted).to_be_bytes();
    }
    Uuid::new_v8(bytes)
}

impl<S: State> Driver<S> {
    fn behind(&self) -> Option<&Behind> {
        self.shared.run.store.as_ref()?.behind.as_ref()
    }

    /// A name for the next checkpoint.
    pub(super) fn next_id(&mut self) -> Uuid {
        let run = &self.shared.run;
        let named = if run.key.namespace.is_root() {
            run.run_id().as_uuid()
        } else {
            Uuid::new_v5(&run.run_id().as_uuid(), run.key.namespace.as_str().as_bytes())
        };
        let epoch = run.store.as_ref().map_or(Epoch(0), |handle| handle.epoch);
        self.late.saves = self.late.saves.wrapping_add(1);
        checkpoint_id(named, epoch, self.late.saves)
    }

    /// The newest checkpoint as the driver has it.
    fn kept(&mut self, mark: Mark) -> Kept<S> {
        Kept {
            parts: Arc::clone(&self.shared.parts),
            sink: self.shared.sink.clone(),
            state: Arc::clone(&self.shared.state),
            changes: std::mem::take(&mut self.late.unwritten),
            sizes: self.sizes,
            tasks: self.tasks.clone(),
            waiting: self.waiting.clone(),
            mark,
        }
    }

    /// Holds the checkpoint back until the run ends, or somebody has facts to write about the step that begins there.
    pub(super) async fn hold(&mut self, mark: Mark) {
        self.late.held = Some(Box::new(mark));
        self.late.unwritten.absorb(&mut self.changes);
        let kept = Box::new(self.kept(mark));
        if let Some(behind) = self.behind() {
            *behind.turn.lock().await = Unwritten::Held(kept);
        }
    }

    /// Begins to write the checkpoint while the run goes on. What was written before is there by now.
    pub(super) async fn save_behind(&mut self, mark: Mark) -> Result<(), RunError> {
        let shared = &self.shared;
        let sizes = &mut self.sizes;
        let checkpoint = new_checkpoint(
            &shared.parts,
            &shared.state,
            &self.changes,
            sizes,
            &self.tasks,
            &self.waiting,
            mark,
        )?;
        let kind = shared
            .sink
            .is_heard()
            .then(|| saved(&shared.sink, &shared.parts, &shared.state, &self.tasks, mark));
        let ready = Ready {
            checkpoint,
            sizes: self.sizes,
            records: std::mem::take(&mut self.kept),
            tell: kind.map(|kind| tell_saved(&shared.sink, kind)),
        };
        if let Some(behind) = self.behind() {
            let turn = Arc::clone(&behind.turn).lock_owned().await;
            behind.begin(&self.shared.run, turn, ready);
        }
        self.changes.clear();
        Ok(())
    }

    /// Waits for the write under way, and knows then what is stored. What is held back stays so.
    pub(super) async fn catch_up(&mut self) -> Result<(), RunError> {
        let Some(behind) = self.behind() else { return Ok(()) };
        let mut turn = Arc::clone(&behind.turn).lock_owned().await;
        match std::mem::take(&mut *turn) {
            Unwritten::Nothing => {}
            held @ Unwritten::Held(_) => *turn = held,
            Unwritten::UnderWay => return Err(unsaved("its write ended early")),
            Unwritten::Written(sizes) => {
                self.sizes = sizes;
                self.late.held = None;
            }
            Unwritten::Failed(error) => return Err(error.unwrap_or_else(|| unsaved("its error was told before"))),
        }
        Ok(())
    }

    /// The same, and takes back what is held, so that the state is the driver's alone and can be changed in place.
    pub(super) async fn take_back(&mut self) -> Result<Option<Mark>, RunError> {
        loop {
            self.catch_up().await?;
            let Some(behind) = self.behind() else { return Ok(None) };
            let mut turn = Arc::clone(&behind.turn).lock_owned().await;
            match std::mem::take(&mut *turn) {
                Unwritten::Nothing => return Ok(None),
                Unwritten::Held(held) => {
                    drop(turn);
                    self.late.unwritten = held.into_changes();
                    return Ok(self.late.held.take().map(|mark| *mark));
                }
                // Somebody had it written meanwhile.
                other @ (Unwritten::UnderWay | Unwritten::Written(_) | Unwritten::Failed(_)) => *turn = other,
            }
        }
    }

    /// Writes what is held back, and waits for what is being written.
    pub(crate) async fn settle(&self) -> Result<(), RunError> {
        if let Some(mut turn) = self.shared.run.caught_up().await
            && let Unwritten::Failed(error) = &mut *turn
        {
            return Err(error.take().unwrap_or_else(|| unsaved("its error was told before")));
        }
        Ok(())
    }
}
