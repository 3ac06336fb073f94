//! How a run begins: new input is admitted, or an old run goes on, before any node runs.

use std::sync::Arc;

use super::{
    Journal, OnPending,
    answer::answer_records,
    barrier::Sizes,
    behind::StoreHandle,
    driver::Driver,
    error::RunError,
    frontier::{Frontier, Lost},
    guard::guarded,
    merge::merge,
    open::{Opened, Opening, decode, sizes},
    plan::{Seed, Waiting},
    recorded,
    recording::{Origin, Recording},
    version::{Inherited, migrate_inputs},
};
use crate::{
    ask::Answers,
    checkpoint::{Checkpoint, CheckpointSource, Commit, RecordKind, RunStatus, Seq, TaskRecord},
    dynamic::Compat,
    graph::Payload,
    state::{Changes, State},
};

impl<S: State> Opening<S> {
    /// New input: the admission is durable before any node runs.
    pub(super) async fn admit(
        self: Box<Self>,
        input: S::Input,
        found: Option<Box<Checkpoint>>,
    ) -> Result<Box<Driver<S>>, RunError> {
        if self.graph.parts.compat == Compat::Recorded
            && let Some(empty) = S::empty(&self.graph.parts.shape)
        {
            return Box::pin(self.admit_apart(empty, input, found)).await;
        }
        let origin = self.records().then(|| Origin::input(&input)).transpose()?;
        let parts = Arc::clone(&self.graph.parts);
        let mut changes = Changes::default();
        let (state, step, sizes, parent) = match found {
            None => {
                let begun = guarded(|| S::start(&parts.shape, input));
                let state = begun.map_err(|panic| self.panicked(0, None, panic))?;
                (state, 0, Sizes::default(), None)
            }
            Some(checkpoint) => {
                self.refuse_pending(&checkpoint)?;
                // The input itself counts as a step, and so does its merge.
                let step = checkpoint.info.step + 2;
                let mut state = decode::<S>(&parts.shape, &checkpoint)?;
                guarded(|| {
                    self.commit_finished(&checkpoint, &mut state, &mut changes)?;
                    state.restart(input, &mut changes);
                    Ok::<(), RunError>(())
                })
                .map_err(|panic| self.panicked(step, Some(&checkpoint), panic))??;
                (
                    state,
                    step,
                    sizes::<S>(&parts.shape, &checkpoint),
                    self.parent(&checkpoint),
                )
            }
        };
        let run = self.options.run;
        let outbox = self.options.outbox.clone();
        let mut driver = self.driver(state, step, run, Journal::default());
        driver.sizes = sizes;
        driver.changes = changes;
        driver.origin = origin;
        driver.parent = parent;
        driver.admitted()?;
        let mark = driver.mark(driver.admission(), None);
        driver.save(CheckpointSource::Input, Some(mark), outbox).await?;
        Ok(driver)
    }

    /// New input as a checkpoint of its own, with START as the next task: what was recorded of another engine.
    async fn admit_apart(
        self: Box<Self>,
        empty: S,
        input: S::Input,
        found: Option<Box<Checkpoint>>,
    ) -> Result<Box<Driver<S>>, RunError> {
        let parts = Arc::clone(&self.graph.parts);
        let (mut waiting, mut changes) = (Waiting::new(&parts.topology), Changes::default());
        let (state, step, sizes, parent) = match found {
            None => (empty, -1, Sizes::default(), None),
            Some(checkpoint) => {
                self.refuse_pending(&checkpoint)?;
                // What was to run is dropped, and the joins that led there begin anew.
                if let Ok((dropped, kept)) =
                    Frontier::decode(&checkpoint.info.frontier)?.load(&parts.topology, &parts.nodes)
                {
                    waiting = kept;
                    waiting.rearm(&parts.topology, &dropped.iter().map(|task| task.node));
                }
                let state = decode::<S>(&parts.shape, &checkpoint)?;
                let mut state = recorded::with_commands(parts.compat, state, &checkpoint, &mut changes)?;
                let merged = || self.commit_finished(&checkpoint, &mut state, &mut changes);
                let step = checkpoint.info.step + 1;
                guarded(merged).map_err(|panic| self.panicked(step, Some(&checkpoint), panic))??;
                (
                    state,
                    step,
                    sizes::<S>(&parts.shape, &checkpoint),
                    self.parent(&checkpoint),
                )
            }
        };
        let run = self.options.run;
        let outbox = self.options.outbox.clone();
        let mut driver = self.driver(state, step, run, Journal::default());
        (driver.sizes, driver.changes) = (sizes, changes);
        driver.parent = parent;
        driver.waiting = waiting;
        driver.tasks.set_only(Seed {
            node: parts.topology.start(),
            send: Some((0, Arc::new(input) as Payload)),
        });
        let mark = driver.mark(RunStatus::Running, None);
        driver.save(CheckpointSource::Input, Some(mark), outbox).await?;
        Ok(driver)
    }

    /// Whether what the thread is begun with or edited by is to be written down.
    pub(super) fn records(&self) -> bool {
        self.options.recording.unwrap_or(self.graph.recording) >= Recording::Outputs && self.handle.is_some()
    }

    /// Merges what tasks of the unfinished step have given back, if new input is to find it.
    fn commit_finished(&self, found: &Checkpoint, state: &mut S, changes: &mut Changes) -> Result<(), RunError> {
        if self.options.on_pending != Some(OnPending::CommitFinished) || self.options.at.is_some() {
            return Ok(());
        }
        let kept = self.graph.kept_updates(found)?;
        for command in kept.commands {
            state.apply(command, changes);
        }
        let parts = &self.graph.parts;
        let fields = S::fields(&parts.shape);
        let name = |at: usize| fields.get(at).map(|field| field.name.to_string()).unwrap_or_default();
        for ((id, handler), update) in kept.by.iter().zip(&kept.tasks) {
            let by = handler.as_deref().or_else(|| id.split('#').next());
            let node = by.and_then(|name| parts.topology.find(name));
            if let Some(field) = node.and_then(|node| parts.undeclared(node, update)) {
                return Err(RunError::UndeclaredWrite {
                    task: handler.as_ref().unwrap_or(id).clone(),
                    field: name(field),
                    step: found.info.step + 1,
                    thread: Box::new(self.key.clone()),
                    checkpoint: Some(found.info.seq),
                });
            }
        }
        let task = |at: usize| kept.by.get(at).map(|(id, _)| id.clone()).unwrap_or_default();
        merge(state, fields, kept.tasks, changes, |_| ()).map_err(|conflict| RunError::Conflict {
            field: name(conflict.field),
            first: task(conflict.first),
            second: task(conflict.second),
            step: found.info.step + 1,
            thread: Box::new(self.key.clone()),
            checkpoint: Some(found.info.seq),
        })
    }

    /// The checkpoint to grow from, if it was named.
    fn parent(&self, found: &Checkpoint) -> Option<Seq> {
        self.options.at.map(|_| found.info.seq)
    }

    /// Goes on from the thread's head, or runs again what followed from an older checkpoint.
    pub(super) async fn resume(
        mut self: Box<Self>,
        answers: Answers,
        found: Option<Box<Checkpoint>>,
    ) -> Result<Opened<S>, RunError> {
        if self.handle.is_none() {
            return Err(self.no_checkpointer());
        }
        let Some(found) = found else {
            return Err(self.unknown());
        };
        let parts = Arc::clone(&self.graph.parts);
        let frontier = Frontier::decode(&found.info.frontier)?;
        let loaded = frontier.load(&parts.topology, &parts.nodes);
        let (tasks, waiting) = loaded.map_err(|lost| self.lost(lost))?;
        let state = decode::<S>(&parts.shape, &found)?;
        let tasks = migrate_inputs::<S>(&parts, found.info.state_version, tasks)?;
        let inherited = Inherited::of::<S>(&parts, &found)?;
        let (step, sizes, recorded_at) = (found.info.step, sizes::<S>(&parts.shape, &found), found.info.created_at);
        let begins_at = found.info.id;
        let head = self.handle.as_ref().and_then(StoreHandle::head);
        let in_place = self.options.at.is_some() && recorded::replays_in_place(parts.compat, &found, head);
        if self.options.at.is_some() && !in_place {
            return self.rerun(&found, state, (tasks, waiting)).await;
        }
        let run = found.run.as_ref().map(|mark| mark.run);
        let command = self.options.command.take();
        let mut records = found.records;
        let (unnamed, laid_out) = recorded::unnamed(parts.compat, &records, &answers, command.as_ref());
        let mut given = if in_place {
            let withdrawn = recorded::withdrawn(&records);
            records.retain(|record| record.kind == RecordKind::Command);
            withdrawn
        } else {
            answer_records(&records, answers, parts.compat)?
        };
        given.extend(unnamed.filter(|_| !in_place));
        records.extend(given.iter().cloned());
        let mut driver = self.driver(state, step, run, Journal::default());
        driver.stand_at((tasks, waiting));
        driver.sizes = sizes;
        driver.shared.inherited = inherited;
        given.extend(driver.obey_all(&records, command)?);
        driver.shared.run.journal.keep(records);
        if let Some(answer) = laid_out.filter(|_| !in_place) {
            driver.shared.run.journal.lay_out(answer);
        }
        driver.open_account(frontier.account);
        if driver.tasks.is_empty() {
            return idle(driver, given).await;
        }
        driver.has_records = true;
        driver.shared.recorded_at = Some(recorded_at);
        driver.shared.begins_at = begins_at;
        let mark = driver.mark(RunStatus::Running, None);
        driver
            .commit(Commit {
                records: given,
                run: Some(mark),
                ..Commit::default()
            })
            .await?;
        Ok(Opened::Open(driver))
    }

    /// Begins a branch that runs again what followed from a checkpoint.
    async fn rerun(
        mut self: Box<Self>,
        found: &Checkpoint,
        state: S,
        next: (Vec<Seed<Payload>>, Waiting),
    ) -> Result<Opened<S>, RunError> {
        let (run, command) = (self.options.run, self.options.command.take());
        let parts = Arc::clone(&self.graph.parts);
        let mut changes = Changes::default();
        let state = recorded::with_commands(parts.compat, state, found, &mut changes)?;
        let mut driver = self.driver(state, found.info.step + 1, run, Journal::default());
        driver.stand_at(next);
        driver.sizes = sizes::<S>(&parts.shape, found);
        (driver.parent, driver.changes) = (Some(found.info.seq), changes);
        // The branch begins with what was told, so that no record of it is needed.
        driver.obey_all(&[], command)?;
        let status = if driver.tasks.is_empty() {
            RunStatus::Done
        } else {
            RunStatus::Running
        };
        let mark = driver.mark(status, None);
        driver.save(CheckpointSource::Fork, Some(mark), Vec::new()).await?;
        Ok(Opened::Open(driver))
    }

    fn lost(&self, lost: Lost) -> RunError {
        super::frontier::lost(lost, &self.key, self.graph.name())
    }
}

/// Nothing is left to run: what a command has written is saved.
async fn idle<S: State>(mut driver: Box<Driver<S>>, given: Vec<TaskRecord>) -> Result<Opened<S>, RunError> {
    if driver.changes.fields().is_empty() {
        return Ok(Opened::Ended(driver.end()));
    }
    let mark = driver.mark(RunStatus::Done, None);
    match driver.shared.parts.compat {
        Compat::Strict => {
            driver.kept = given;
            driver.save(CheckpointSource::Update, Some(mark), Vec::new()).await?;
        }
        // It stays with the checkpoint until a step takes it in.
        Compat::Recorded => {
            driver
                .commit(Commit {
                    records: given,
                    run: Some(mark),
                    ..Commit::default()
                })
                .await?;
        }
    }
    Ok(Opened::Ended(driver.end()))
}
