//! The loop of a run: plan, step, merge, checkpoint, events. The only caller of the four.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

use super::{
    Outcome, StalledJoin,
    busy::Hold,
    error::RunError,
    event::EventKind,
    frontier::Frontier,
    merge::{Conflict, merge},
    open::guarded,
    owned,
    plan::{Departure, Joins, Seed, plan},
    step::{Crowd, End, Shared, StoredOutput, run_one},
};
use crate::{
    ask::Question,
    checkpoint::{
        CheckpointSource, Commit, NewCheckpoint, OutboxMessage, Payload as StoredState, RecordKind, RunMark, RunStatus,
        Seq, TaskRecord,
    },
    graph::{Output, Payload},
    node::{NodeError, StoreHandle},
    state::{Changes, State},
};

/// A run under way.
pub(crate) struct Driver<S: State> {
    pub(crate) shared: Shared<S>,
    pub(crate) tasks: Vec<Seed<Payload>>,
    pub(crate) joins: Joins,
    pub(crate) steps_left: u32,
    pub(crate) step_limit: u32,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) sizes: Sizes,
    pub(crate) changes: Changes,
    /// Outputs that earlier runs of this step have left behind are looked up only when there are any.
    pub(crate) has_records: bool,
    pub(crate) _hold: Option<Hold>,
}

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
    const fn snapshot_due(self) -> bool {
        self.snapshot == 0 || (self.deltas > self.snapshot && self.deltas > Self::DELTAS_MIN)
    }
}

/// How a step ended.
enum StepEnd {
    Merged,
    Asked(Vec<Question>),
    Cancelled,
}

impl<S: State> Driver<S> {
    /// Runs to an outcome.
    pub(crate) async fn drive(mut self) -> Result<Outcome<S>, RunError> {
        loop {
            if self.tasks.is_empty() {
                return Ok(self.end());
            }
            if self.steps_left == 0 {
                let error = RunError::StepLimit { limit: self.step_limit };
                return Err(self.give_up(RunStatus::Stopped, Vec::new(), error).await);
            }
            self.steps_left -= 1;
            match self.superstep().await? {
                StepEnd::Merged => {}
                StepEnd::Asked(questions) => return Ok(Outcome::Asked(questions)),
                StepEnd::Cancelled => return Ok(Outcome::Cancelled),
            }
        }
    }

    /// What a run has come to that has no tasks left.
    pub(crate) fn end(self) -> Outcome<S> {
        let topology = &self.shared.parts.topology;
        let names = |nodes: Vec<usize>| {
            nodes
                .into_iter()
                .map(|node| topology.name(node).clone().into_owned())
                .collect()
        };
        let waiting = self.joins.waiting(topology).into_iter();
        let waiting: Vec<_> = waiting
            .map(|(to, missing)| StalledJoin {
                to: names(to),
                missing: names(missing),
            })
            .collect();
        let state = owned(self.shared.state);
        if waiting.is_empty() {
            Outcome::Done(state)
        } else {
            Outcome::Stalled { state, waiting }
        }
    }

    async fn superstep(&mut self) -> Result<StepEnd, RunError> {
        self.shared.step += 1;
        if self.shared.sink.is_heard() {
            let tasks = self
                .tasks
                .iter()
                .map(|task| self.shared.parts.topology.name(task.node).clone())
                .collect();
            self.shared
                .tell(EventKind::Step {
                    step: self.shared.step,
                    tasks,
                })
                .await;
        }
        // Tasks that never wait would not notice it themselves, nor let others run.
        tokio::task::coop::consume_budget().await;
        if let Some(end) = self.shared.stop() {
            return self.suspend(Vec::new(), vec![(0, end)]).await;
        }
        let ends = match self.tasks.as_slice() {
            [task] if !self.has_records => vec![run_one(&self.shared, task).await],
            _ => self.run_crowd().await?,
        };
        let mut outputs = Vec::with_capacity(ends.len());
        let mut others = Vec::new();
        for (at, end) in ends.into_iter().enumerate() {
            match end {
                End::Output(output) => outputs.push((at, output)),
                other => others.push((at, other)),
            }
        }
        if others.is_empty() {
            let outputs = outputs.into_iter().map(|(_, output)| output).collect();
            self.barrier(outputs).await?;
            return Ok(StepEnd::Merged);
        }
        self.suspend(outputs, others).await
    }

    /// Runs the tasks side by side. With a store, each result is durable before the next is waited for.
    async fn run_crowd(&mut self) -> Result<Vec<End<S>>, RunError> {
        let mut ends: Vec<Option<End<S>>> = Vec::new();
        for task in &self.tasks {
            ends.push(if self.has_records { self.recorded(task)? } else { None });
        }
        let open = self
            .tasks
            .iter()
            .enumerate()
            .filter(|(at, _)| ends.get(*at).is_some_and(Option::is_none));
        let (mut crowd, mut ended) = Crowd::start(&self.shared, open).await;
        loop {
            if !crowd.is_empty() {
                self.keep_outputs(ended.iter().filter_map(|(at, end)| {
                    if let End::Output(output) = end {
                        Some((*at, output))
                    } else {
                        None
                    }
                }))
                .await?;
            }
            for (at, end) in ended {
                if let Some(slot) = ends.get_mut(at) {
                    *slot = Some(end);
                }
            }
            if crowd.is_empty() {
                break;
            }
            ended = crowd.next().await.map_err(|message| RunError::Panic {
                step: self.shared.step,
                message,
            })?;
        }
        let lost = || End::Failed {
            error: NodeError::retryable("the task ended without a result"),
            attempts: 1,
        };
        Ok(ends.into_iter().map(|end| end.unwrap_or_else(lost)).collect())
    }

    /// How a task ended in an earlier run of this step, if it needs not run again.
    fn recorded(&self, task: &Seed<Payload>) -> Result<Option<End<S>>, RunError> {
        let id = self.task_id(task);
        let journal = &self.shared.run.journal;
        if let Some(StoredOutput { update, route }) =
            journal.decode::<StoredOutput<S::Update>>(&id, RecordKind::Output, "")?
        {
            return Ok(Some(End::Output(Output { update, route })));
        }
        let open = journal.open_questions(&id);
        Ok((!open.is_empty()).then_some(End::Asked(open)))
    }

    fn task_id(&self, task: &Seed<Payload>) -> String {
        self.shared
            .parts
            .topology
            .task_id(task.node, task.send.as_ref().map(|(number, _)| *number))
    }

    fn output_records<'a>(
        &self,
        outputs: impl Iterator<Item = (usize, &'a Output<S>)>,
    ) -> Result<Vec<TaskRecord>, RunError> {
        outputs
            .filter_map(|(at, output)| self.tasks.get(at).map(|task| (task, output)))
            .map(|(task, output)| {
                let body = super::encode_record(&StoredOutput {
                    update: &output.update,
                    route: output.route,
                })?;
                Ok(TaskRecord {
                    task: self.task_id(task),
                    kind: RecordKind::Output,
                    key: String::new(),
                    body,
                })
            })
            .collect()
    }

    async fn keep_outputs<'a>(&self, outputs: impl Iterator<Item = (usize, &'a Output<S>)>) -> Result<(), RunError>
    where
        S: 'a,
    {
        if self.shared.run.store.is_none() {
            return Ok(());
        }
        let records = self.output_records(outputs)?;
        if records.is_empty() {
            Ok(())
        } else {
            self.commit(Commit {
                records,
                ..Commit::default()
            })
            .await
        }
    }

    /// A step in which not every task finished: keeps what there is and ends the run there.
    async fn suspend(
        &mut self,
        outputs: Vec<(usize, Output<S>)>,
        others: Vec<(usize, End<S>)>,
    ) -> Result<StepEnd, RunError> {
        let mut records = self.output_records(outputs.iter().map(|(at, output)| (*at, output)))?;
        let mut questions = Vec::new();
        let mut failed = None;
        let mut timed_out = false;
        let mut cancelled = false;
        for (at, end) in others {
            let Some(task) = self.tasks.get(at) else { continue };
            match end {
                End::Output(_) => {}
                End::Asked(asked) => {
                    records.extend(question_records(&self.task_id(task), &asked));
                    questions.extend(asked);
                }
                End::Failed { error, attempts } => {
                    let kind = RecordKind::Failure;
                    let body = super::encode_record(&error.to_string())?;
                    records.push(TaskRecord {
                        task: self.task_id(task),
                        kind,
                        key: String::new(),
                        body,
                    });
                    failed.get_or_insert((at, error, attempts));
                }
                End::Cancelled => cancelled = true,
                End::TimeLimit => timed_out = true,
            }
        }
        if let Some((at, error, attempts)) = failed {
            let error = self.node_error(at, error, attempts);
            return Err(self.give_up(RunStatus::Failed, records, error).await);
        }
        if timed_out {
            let error = RunError::TimeLimit {
                limit: self.time_limit.unwrap_or_default(),
            };
            return Err(self.give_up(RunStatus::Stopped, records, error).await);
        }
        let status = if cancelled {
            RunStatus::Stopped
        } else {
            RunStatus::Asked
        };
        self.commit(Commit {
            records,
            run: Some(self.mark(status, None)),
            ..Commit::default()
        })
        .await?;
        if cancelled {
            return Ok(StepEnd::Cancelled);
        }
        for question in &questions {
            self.shared
                .tell(EventKind::Asked {
                    question: question.clone(),
                })
                .await;
        }
        Ok(StepEnd::Asked(questions))
    }

    fn node_error(&self, at: usize, error: NodeError, attempts: u32) -> RunError {
        let task = self.tasks.get(at);
        RunError::Node {
            node: task
                .map(|task| self.shared.parts.topology.name(task.node).clone().into_owned())
                .unwrap_or_default(),
            task: task.map(|task| self.task_id(task)).unwrap_or_default(),
            step: self.shared.step,
            thread: Box::new(self.shared.run.key.clone()),
            checkpoint: self.shared.run.store.as_ref().and_then(StoreHandle::head),
            attempts,
            retryable: error.is_retryable(),
            source: error.into_source(),
        }
    }

    /// Writes down why the run ends, and gives the error back. A store that fails as well is only logged: what the
    /// caller needs to know is the first error.
    async fn give_up(&self, status: RunStatus, records: Vec<TaskRecord>, error: RunError) -> RunError {
        let run = Some(self.mark(status, Some(error.to_string())));
        if let Err(failure) = self
            .commit(Commit {
                records,
                run,
                ..Commit::default()
            })
            .await
        {
            tracing::error!(thread = %self.shared.run.key, %failure, "a run's failure could not be written down");
        }
        error
    }

    /// All tasks have finished: their updates become the new state, and the next tasks follow from it.
    async fn barrier(&mut self, outputs: Vec<Output<S>>) -> Result<(), RunError> {
        if self.shared.sink.is_heard() {
            for (task, output) in self.tasks.iter().zip(&outputs) {
                let node = self.shared.parts.topology.name(task.node).clone();
                self.shared
                    .tell(EventKind::Update {
                        node,
                        update: output.update.clone(),
                    })
                    .await;
            }
        }
        self.changes.clear();
        // A panic leaves the state half merged: the run ends here, and the store still has the whole one.
        let merged = guarded(self.shared.step, || self.merge_and_plan(outputs));
        if let Err(error) = merged.and_then(|merged| merged.map_err(|conflict| self.conflict_error(&conflict))) {
            return Err(self.give_up(RunStatus::Failed, Vec::new(), error).await);
        }
        let run = self.tasks.is_empty().then(|| self.mark(RunStatus::Done, None));
        self.save(CheckpointSource::Step, run, Vec::new()).await
    }

    /// Writes the state as it stands, as a snapshot or as this step's changes, and what is to run next.
    pub(crate) async fn save(
        &mut self,
        source: CheckpointSource,
        run: Option<RunMark>,
        outbox: Vec<OutboxMessage>,
    ) -> Result<(), RunError> {
        let mut saved = None;
        self.has_records = false;
        if self.shared.run.store.is_some() {
            // As exact as stores keep it, so that tasks which are entered again see the same time.
            let created_at = self.shared.run.clock.now().trunc_subsecs(6);
            let checkpoint = self.checkpoint(source, created_at)?;
            let id = checkpoint.id;
            self.commit(Commit {
                checkpoint: Some(checkpoint),
                records: Vec::new(),
                run,
                outbox,
            })
            .await?;
            self.shared.recorded_at = Some(created_at);
            saved = self
                .shared
                .run
                .store
                .as_ref()
                .and_then(StoreHandle::head)
                .map(|seq| (seq, id));
        }
        // The records belong to the step that has ended.
        self.shared.run.journal.clear();
        if self.shared.sink.is_heard() {
            self.shared
                .tell(EventKind::Saved {
                    step: self.shared.step,
                    checkpoint: saved,
                })
                .await;
        }
        Ok(())
    }

    fn checkpoint(&mut self, source: CheckpointSource, created_at: DateTime<Utc>) -> Result<NewCheckpoint, RunError> {
        let state = &self.shared.state;
        let payload = if self.sizes.snapshot_due() {
            let bytes: Arc<[u8]> = state.encode()?.into();
            self.sizes = Sizes {
                snapshot: bytes.len().max(1),
                deltas: 0,
            };
            StoredState::Snapshot(bytes)
        } else {
            let bytes: Arc<[u8]> = state.encode_changes(&self.changes)?.into();
            self.sizes.deltas += bytes.len();
            StoredState::Delta(bytes)
        };
        let parts = &self.shared.parts;
        Ok(NewCheckpoint {
            id: self.checkpoint_id(),
            step: self.shared.step,
            source,
            payload,
            frontier: Frontier::store(&parts.topology, &parts.nodes, &self.tasks, &self.joins)?,
            fingerprint: parts.topology.fingerprint,
            state_version: S::VERSION,
            created_at,
        })
    }

    /// A UUID of the run's own bytes with the step counted into the last four: unique without asking for randomness.
    fn checkpoint_id(&self) -> Uuid {
        let mut bytes = *self.shared.run.run.as_uuid().as_bytes();
        if let Some((_, tail)) = bytes.split_last_chunk_mut::<4>() {
            let step = u32::try_from(self.shared.step.rem_euclid(i64::from(u32::MAX))).unwrap_or_default();
            *tail = u32::from_be_bytes(*tail).wrapping_add(step).to_be_bytes();
        }
        Uuid::new_v8(bytes)
    }

    pub(crate) fn mark(&self, status: RunStatus, error: Option<String>) -> RunMark {
        RunMark {
            run: self.shared.run.run,
            graph: self.shared.parts.topology.graph.clone(),
            status,
            error,
        }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), RunError> {
        let Some(handle) = &self.shared.run.store else {
            return Ok(());
        };
        let head = handle
            .store
            .commit(&self.shared.run.key, handle.epoch, handle.head(), commit)
            .await?;
        handle.head.store(head.map_or(0, |Seq(seq)| seq), Ordering::Release);
        Ok(())
    }

    fn merge_and_plan(&mut self, outputs: Vec<Output<S>>) -> Result<(), Conflict> {
        let parts = Arc::clone(&self.shared.parts);
        let fields = S::fields(&parts.shape);
        let tasks = std::mem::take(&mut self.tasks);
        let crowd = outputs.len() > 1;
        let mut departures: Vec<Departure<Payload>> = Vec::with_capacity(outputs.len());
        let mut updates = Vec::with_capacity(outputs.len());
        for (task, output) in tasks.iter().zip(outputs) {
            let mut departure = Departure {
                node: task.node,
                chosen: Vec::new(),
                sends: Vec::new(),
            };
            let exits = parts.topology.exits(task.node);
            if let Some(targets) = output.route.and_then(|route| exits.routes.get(route)) {
                departure.chosen.extend_from_slice(targets);
            }
            if crowd && exits.is_conditional() {
                // Routing sees the state at the step's start plus the task's own update, not its siblings'.
                let mut own = S::clone(&self.shared.state);
                own.apply(output.update.clone(), &mut Changes::default());
                self.route(&own, &mut departure);
            }
            departures.push(departure);
            updates.push(output.update);
        }
        self.tasks = tasks;
        merge(
            Arc::make_mut(&mut self.shared.state),
            fields,
            updates,
            &mut self.changes,
        )?;
        if let [departure] = departures.as_mut_slice() {
            self.route(&self.shared.state, departure);
        }
        self.tasks = plan(&parts.topology, departures, &mut self.joins);
        Ok(())
    }

    /// Where branches and fan-outs lead from `state`.
    pub(crate) fn route(&self, state: &S, departure: &mut Departure<Payload>) {
        let parts = &self.shared.parts;
        let exits = parts.topology.exits(departure.node);
        for at in &exits.branches {
            let (Some(branch), Some(table)) = (parts.branches.get(*at), parts.topology.branches.get(*at)) else {
                continue;
            };
            if let Some(targets) = table.get((branch.choose)(state)) {
                departure.chosen.extend_from_slice(targets);
            }
        }
        for at in &exits.fan_outs {
            let (Some(fan_out), Some(worker)) = (parts.fan_outs.get(*at), parts.topology.fan_outs.get(*at)) else {
                continue;
            };
            departure
                .sends
                .extend((fan_out.spread)(state).into_iter().map(|payload| (*worker, payload)));
        }
    }

    fn conflict_error(&self, conflict: &Conflict) -> RunError {
        let name = |at: usize| self.tasks.get(at).map(|task| self.task_id(task)).unwrap_or_default();
        let fields = S::fields(&self.shared.parts.shape);
        let field = fields
            .get(conflict.field)
            .map_or(Cow::Borrowed("?"), |field| field.name.clone());
        RunError::Conflict {
            field: field.into_owned(),
            first: name(conflict.first),
            second: name(conflict.second),
            step: self.shared.step,
        }
    }
}

/// Questions as records; an answer that did not fit is withdrawn with them.
fn question_records(task: &str, questions: &[Question]) -> Vec<TaskRecord> {
    let mut records = Vec::new();
    for question in questions {
        let record = |kind, body: Vec<u8>| TaskRecord {
            task: task.to_owned(),
            kind,
            key: question.name.clone(),
            body: body.into(),
        };
        // A question is made of strings and JSON values, which always serialise.
        records.push(record(
            RecordKind::Question,
            serde_json::to_vec(question).unwrap_or_default(),
        ));
        if question.problem.is_some() {
            records.push(record(RecordKind::Answer, Vec::new()));
        }
    }
    records
}
