//! The end of a step: updates become the new state, the next tasks follow from it, and both are written down.

use std::{borrow::Cow, sync::Arc};

use chrono::DateTime;
use uuid::Uuid;

use super::{
    behind::{Durability, StoreHandle},
    budget::Spend,
    driver::Driver,
    error::RunError,
    event::EventKind,
    frontier::Frontier,
    guard::guarded,
    merge::{Conflict, overlay},
    saver::{Mark, new_checkpoint, saved, to_microseconds},
};
use crate::{
    checkpoint::{CheckpointSource, Commit, OutboxMessage, RunMark, RunStatus, Seq},
    graph::{Output, UnknownTarget},
    scrub::scrub,
    state::{Changes, State, hidden},
};

/// How large the newest snapshot is and the deltas that follow it, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    pub(crate) snapshot: usize,
    pub(crate) deltas: usize,
}

impl Sizes {
    /// Below this, a chain of deltas is always cheaper than another snapshot.
    const DELTAS_MIN: usize = 4096;

    /// A new snapshot is due when reading the deltas costs as much as reading the snapshot.
    pub(super) const fn snapshot_due(self) -> bool {
        self.snapshot == 0 || (self.deltas > 2 * self.snapshot && self.deltas > Self::DELTAS_MIN)
    }
}

/// What the tasks of a step gave, in their order.
pub(super) enum Outputs<S: State> {
    /// Of its only task.
    Lone(Output<S>),
    Crowd(Vec<Output<S>>),
}

/// The same to be merged: what a lone task gave, where it lies.
pub(super) enum Gave<'a, S: State> {
    Lone(&'a mut Output<S>),
    Crowd(Vec<Output<S>>),
}

/// Who leads on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leader {
    /// A task of the step, by its position.
    Task(usize),
    /// A node, or START, that an edit is made as or a run begins at.
    Place(usize),
}

/// Why a step's updates did not become a new state.
pub(super) enum Unmerged {
    Conflict(Conflict),
    /// Which task was given its output by which node with a field that this node has said it does not write.
    Undeclared(usize, usize, usize),
    /// Who led to which place.
    Target(Leader, UnknownTarget),
}

impl<S: State> Outputs<S> {
    /// What the tasks have spent.
    fn spend(&self) -> Spend {
        match self {
            Self::Lone(output) => output.spend,
            Self::Crowd(outputs) => outputs.iter().map(|output| output.spend).sum(),
        }
    }
}

impl<S: State> Driver<S> {
    /// All tasks have finished: their updates become the new state, and the next tasks follow from it.
    pub(super) async fn barrier(&mut self, outputs: Outputs<S>) -> Result<(), RunError> {
        let held = self.take_back().await?;
        self.record_outputs(&outputs)?;
        let spend = outputs.spend();
        // A panic leaves the state half merged: the run ends here, and the store still has the whole one.
        let merged = match outputs {
            Outputs::Lone(mut output) => self.merged(Gave::Lone(&mut output)),
            Outputs::Crowd(outputs) => self.merged(Gave::Crowd(outputs)),
        };
        // A conflict is found before anything is written: the state is still that of the checkpoint.
        if let (Ok(Err(Unmerged::Conflict(_) | Unmerged::Undeclared(..))), Some(held)) = (&merged, held) {
            self.hold(held).await;
        }
        if let Err(error) = merged.and_then(|merged| merged.map_err(|unmerged| self.unmerged(&unmerged))) {
            return Err(self.give_up(RunStatus::Failed, Vec::new(), error).await);
        }
        self.book(spend);
        self.reroute();
        self.tell_values().await;
        let run = self.tasks.is_empty().then(|| self.mark(RunStatus::Done, None));
        self.save(CheckpointSource::Step, run, Vec::new()).await
    }

    /// The first step of a run whose input is a checkpoint of its own: merges the input and follows the ways from START.
    pub(super) async fn start(&mut self) -> Result<(), RunError> {
        self.shared.step += 1;
        let tasks = std::mem::take(&mut self.tasks);
        let inputs = tasks.iter().filter_map(|task| task.send.as_ref());
        let inputs: Vec<S::Input> = inputs
            .filter_map(|(_, payload)| payload.downcast_ref::<S::Input>().cloned())
            .collect();
        let merged = guarded(|| {
            for input in inputs {
                Arc::make_mut(&mut self.shared.state).restart(input, &mut self.changes);
            }
            self.follow_start()
        });
        let merged = merged.map_err(|panic| self.panicked("merging the input", None, panic));
        if let Err(error) = merged.and_then(|merged| merged.map_err(|unmerged| self.unmerged(&unmerged))) {
            self.tasks = tasks;
            return Err(self.give_up(RunStatus::Failed, Vec::new(), error).await);
        }
        self.may_pause = true;
        self.tell_values().await;
        let run = self.tasks.is_empty().then(|| self.mark(RunStatus::Done, None));
        self.save(CheckpointSource::Step, run, Vec::new()).await
    }

    /// The next task is START itself.
    pub(super) fn is_start(&self) -> bool {
        let start = self.shared.parts.topology.start();
        self.tasks.first().is_some_and(|task| task.node == start)
    }

    /// Tells the state after a step that has changed it.
    async fn tell_values(&self) {
        if self.shared.sink.hears_values() && !self.changes.fields().is_empty() {
            let (state, changed) = (hidden(&self.shared.state), self.names(&self.changes));
            self.shared.tell(EventKind::Values { state, changed }).await;
        }
    }

    /// Tells the state that the kept outputs of an unfinished step would make.
    pub(super) async fn tell_kept(&self, outputs: &[(usize, Output<S>)]) {
        if !self.shared.sink.hears_values() {
            return;
        }
        let (mut state, mut changes) = (S::clone(&self.shared.state), Changes::default());
        let updates = outputs.iter().map(|(_, output)| output.update.clone()).collect();
        // What a reducer panics at is told at the step's end, as a conflict is.
        if guarded(|| overlay(&mut state, S::fields(&self.shared.parts.shape), updates, &mut changes)).is_err() {
            return;
        }
        if !changes.fields().is_empty() {
            state.hide();
            let fields = self.names(&changes);
            self.shared
                .tell(EventKind::Values {
                    state: Arc::new(state),
                    changed: fields,
                })
                .await;
        }
    }

    fn names(&self, changes: &Changes) -> Vec<Cow<'static, str>> {
        let fields = S::fields(&self.shared.parts.shape);
        let written = changes.fields().iter().filter_map(|at| fields.get(at));
        written.map(|field| field.name.clone()).collect()
    }

    /// Writes the state as it stands, as a snapshot or as this step's changes, and what is to run next.
    pub(crate) async fn save(
        &mut self,
        source: CheckpointSource,
        run: Option<RunMark>,
        outbox: Vec<OutboxMessage>,
    ) -> Result<(), RunError> {
        self.has_records = false;
        if self.shared.run.store.is_none() && !self.shared.sink.is_heard() {
            self.forget_step();
            return Ok(());
        }
        if self.saves_at_once() {
            return self.save_at_once(source, run, outbox);
        }
        Box::pin(self.save_and_tell(source, run, outbox)).await
    }

    /// Whether a checkpoint is written without waiting, and nobody is told of it.
    pub(super) fn saves_at_once(&self) -> bool {
        let run = &self.shared.run;
        run.store.as_ref().is_some_and(|handle| handle.at_once().is_some()) && !self.shared.sink.is_heard()
    }

    /// Writes the checkpoint to a store that never waits.
    pub(super) fn save_at_once(
        &mut self,
        source: CheckpointSource,
        run: Option<RunMark>,
        outbox: Vec<OutboxMessage>,
    ) -> Result<(), RunError> {
        let mark = self.next_mark(source);
        let commit = self.checkpoint_commit(mark, run, outbox)?;
        let context = &self.shared.run;
        if let Some((handle, line)) = context
            .store
            .as_ref()
            .and_then(|handle| Some((handle, handle.at_once()?)))
        {
            handle.move_head(line.commit(&context.key, handle.epoch, handle.head(), commit)?);
        }
        self.changes.clear();
        self.begin_at(mark);
        Ok(())
    }

    /// What is known of the next checkpoint before it is made.
    fn next_mark(&mut self, source: CheckpointSource) -> Mark {
        let now = || to_microseconds(self.shared.run.setting.clock.now());
        let created_at = self.ended_at.take().unwrap_or_else(now);
        Mark {
            id: self.next_id(),
            step: self.shared.step,
            source,
            created_at,
            account: self.account(),
        }
    }

    /// The next step begins at this checkpoint.
    fn begin_at(&mut self, mark: Mark) {
        self.shared.inherited = None;
        // The records belong to the step that has ended.
        self.shared.run.journal.clear();
        (self.shared.recorded_at, self.shared.begins_at) = (Some(mark.created_at), mark.id);
    }

    async fn save_and_tell(
        &mut self,
        source: CheckpointSource,
        run: Option<RunMark>,
        outbox: Vec<OutboxMessage>,
    ) -> Result<(), RunError> {
        let Some(durability) = self.shared.run.store.as_ref().map(|handle| handle.durability) else {
            self.forget_step();
            let mark = Mark {
                id: Uuid::nil(),
                step: self.shared.step,
                source,
                created_at: DateTime::UNIX_EPOCH,
                account: self.account,
            };
            self.tell_saved(mark, None).await;
            return Ok(());
        };
        let mark = self.next_mark(source);
        // Only what comes between a run's beginning and its end may be written late.
        match durability {
            Durability::Exit if run.is_none() => self.hold(mark).await,
            Durability::Async if run.is_none() => self.save_behind(mark).await?,
            Durability::Sync | Durability::Async | Durability::Exit => self.save_now(mark, run, outbox).await?,
        }
        self.begin_at(mark);
        Ok(())
    }

    /// Begins a step with nothing of the one before.
    pub(super) fn forget_step(&mut self) {
        self.changes.clear();
        self.shared.run.journal.clear();
    }

    /// Writes the checkpoint and waits until it is there.
    async fn save_now(&mut self, mark: Mark, run: Option<RunMark>, outbox: Vec<OutboxMessage>) -> Result<(), RunError> {
        let commit = self.checkpoint_commit(mark, run, outbox)?;
        self.commit(commit).await?;
        self.changes.clear();
        self.late.unwritten.clear();
        let head = self.shared.run.store.as_ref().and_then(StoreHandle::head);
        self.tell_saved(mark, head).await;
        Ok(())
    }

    /// Everything that is written with the checkpoint.
    fn checkpoint_commit(
        &mut self,
        mark: Mark,
        run: Option<RunMark>,
        outbox: Vec<OutboxMessage>,
    ) -> Result<Commit, RunError> {
        let shared = &self.shared;
        let sizes = &mut self.sizes;
        let changes = if shared.run.holds_back() {
            self.late.unwritten.absorb(&mut self.changes);
            &self.late.unwritten
        } else {
            &self.changes
        };
        let mut checkpoint = new_checkpoint(
            &shared.parts,
            &shared.state,
            changes,
            sizes,
            &self.tasks,
            &self.waiting,
            mark,
        )?;
        if let Some(origin) = self.origin.take() {
            checkpoint.frontier = Frontier::with_origin(&checkpoint.frontier, origin)?;
        }
        let (parent, records) = (self.parent.take(), std::mem::take(&mut self.kept));
        Ok(Commit {
            checkpoint: Some(checkpoint),
            parent,
            records,
            run,
            outbox,
        })
    }

    async fn tell_saved(&self, mark: Mark, head: Option<Seq>) {
        let shared = &self.shared;
        if shared.sink.is_heard() {
            let kind = saved(&shared.sink, &shared.parts, &shared.state, &self.tasks, mark);
            shared.tell(kind(head)).await;
        }
    }

    pub(crate) fn mark(&self, status: RunStatus, error: Option<String>) -> RunMark {
        let error = error.map(scrub);
        RunMark {
            run: self.shared.run.run_id(),
            graph: self.shared.parts.topology.graph.clone(),
            status,
            error,
        }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), RunError> {
        let Some(handle) = &self.shared.run.store else {
            return Ok(());
        };
        self.settle().await?;
        handle.move_head(handle.commit(&self.shared.run.key, commit).await?);
        Ok(())
    }

    pub(super) fn unmerged(&self, unmerged: &Unmerged) -> RunError {
        let name = |at: usize| self.tasks.get(at).map(|task| self.task_id(task));
        let field = |at: usize| {
            let field = S::fields(&self.shared.parts.shape).get(at);
            field.map(|field| field.name.to_string()).unwrap_or_default()
        };
        let (thread, checkpoint) = (Box::new(self.shared.run.key.clone()), self.checkpoint());
        match unmerged {
            Unmerged::Conflict(conflict) => RunError::Conflict {
                field: field(conflict.field),
                first: name(conflict.first).unwrap_or_default(),
                second: name(conflict.second).unwrap_or_default(),
                step: self.shared.step,
                thread,
                checkpoint,
            },
            Unmerged::Undeclared(at, by, written) => RunError::UndeclaredWrite {
                task: match self.tasks.get(*at).filter(|task| task.node == *by) {
                    Some(task) => self.task_id(task),
                    None => self.shared.parts.topology.name(*by).to_string(),
                },
                field: field(*written),
                step: self.shared.step,
                thread,
                checkpoint,
            },
            Unmerged::Target(leader, target) => RunError::UnknownTarget {
                from: match *leader {
                    Leader::Task(at) => name(at).unwrap_or_default(),
                    Leader::Place(node) if node == self.shared.parts.topology.start() => "START".to_owned(),
                    Leader::Place(node) => self.shared.parts.topology.name(node).to_string(),
                },
                target: target.0.clone(),
                step: self.shared.step,
                thread,
                checkpoint,
                graph: self.shared.parts.topology.graph.clone().into_owned(),
            },
        }
    }
}
