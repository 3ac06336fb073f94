//! A step in which not every task finished: what there is is kept, and the run ends there.

use std::sync::Arc;

use super::{
    behind::Durability,
    breakpoint::Stop,
    driver::{Driver, StepEnd},
    error::RunError,
    event::EventKind,
    frontier::{Lost, StoredGoto, decode_payload, encode_payload},
    plan::Seed,
    retry::forget,
    step::{End, StoredOutput},
    version::StoredRoute,
};
use crate::{
    ask::Question,
    checkpoint::{Commit, RecordKind, RunStatus, TaskRecord},
    dynamic::Compat,
    graph::{Goto, Leave, Output, Parts, Payload, Rare},
    node::{Caught, Failure, NodeError, handler_task},
    scrub::told,
    state::{State, StateError},
};

/// What the tasks that did not finish have come to, taken together.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each way to end, and several may come together"
)]
struct Rest {
    questions: Vec<Question>,
    failed: Option<TaskFailed>,
    /// Tasks that were cut off with the step.
    cut: Vec<usize>,
    unsaved: Option<Box<RunError>>,
    timed_out: bool,
    cancelled: bool,
    paused: bool,
    drained: bool,
    over_budget: Option<Box<RunError>>,
}

/// A task that has failed for good.
struct TaskFailed {
    at: usize,
    error: NodeError,
    attempts: u32,
    /// The failure that was being handled, if it is a handler that failed.
    caught: Option<Arc<Caught>>,
}

impl<S: State> Driver<S> {
    /// How a task ended in an earlier run of this step, if it needs not run again.
    pub(super) fn recorded(&self, task: &Seed<Payload>) -> Result<Option<End<S>>, RunError> {
        let id = self.task_id(task);
        let journal = &self.shared.run.journal;
        if let Some(body) = journal.body(&id, RecordKind::Output, "") {
            let stored = self.kept_output(&body)?;
            return Ok(Some(End::Output(self.output(task.node, stored)?)));
        }
        if self.shared.parts.compat == Compat::Recorded {
            return Ok(None);
        }
        let handler = match journal.failure(&id)? {
            Some(failure) => failure.handler,
            None => None,
        };
        let mut open = journal.open_questions(&id);
        open.extend(
            handler
                .into_iter()
                .flat_map(|name| journal.open_questions(&handler_task(&name, &id))),
        );
        Ok((!open.is_empty()).then_some(End::Asked(open)))
    }

    /// A recorded output as it was.
    pub(super) fn output(&self, node: usize, stored: StoredOutput<S::Update>) -> Result<Output<S>, RunError> {
        restore_output(&self.shared.parts, node, stored).map_err(|lost| self.lost(lost))
    }

    fn lost(&self, lost: Lost) -> RunError {
        super::frontier::lost(lost, &self.shared.run.key, &self.shared.parts.topology.graph)
    }

    pub(super) fn output_records<'a>(
        &self,
        outputs: impl Iterator<Item = (usize, &'a Output<S>)>,
    ) -> Result<Vec<TaskRecord>, RunError> {
        let mut records = Vec::new();
        for (at, output) in outputs {
            let Some(task) = self.tasks.get(at) else { continue };
            let record = |kind, body| TaskRecord {
                task: self.task_id(task),
                kind,
                key: String::new(),
                body,
            };
            records.push(record(RecordKind::Output, self.stored_output(task.node, output)?));
            if let Some(calls) = &output.calls
                && let Some(body) = calls.encode()?
            {
                records.push(record(RecordKind::Calls, body));
            }
        }
        Ok(records)
    }

    /// An output as it is written down.
    pub(super) fn stored_output(&self, node: usize, output: &Output<S>) -> Result<Arc<[u8]>, RunError> {
        Ok(super::encode_record(&StoredOutput {
            route: StoredRoute::of(&self.shared.parts.topology, output.by.unwrap_or(node), output.route),
            also: StoredRoute::all(&self.shared.parts.topology, output.by.unwrap_or(node), &output.also),
            goto: self.stored_gotos(&output.goto)?,
            leave: output.leave.clone(),
            spend: output.spend,
            cancelled: output.cancelled,
            version: self.update_version(),
            handler: output
                .by
                .map(|by| self.shared.parts.topology.name(by).clone().into_owned()),
            ..StoredOutput::of(&output.update)
        })?)
    }

    pub(super) fn stored_gotos(&self, gotos: &[Goto]) -> Result<Vec<StoredGoto>, RunError> {
        Ok(store_gotos(&self.shared.parts, gotos)?)
    }

    pub(super) async fn keep_outputs<'a>(
        &self,
        outputs: impl Iterator<Item = (usize, &'a Output<S>)>,
    ) -> Result<(), RunError>
    where
        S: 'a,
    {
        let durability = self.shared.run.store.as_ref().map(|handle| handle.durability);
        if matches!(durability, None | Some(Durability::Exit)) {
            return Ok(());
        }
        let records = self.output_records(outputs)?;
        if records.is_empty() {
            return Ok(());
        }
        self.commit(Commit {
            records,
            ..Commit::default()
        })
        .await
    }

    /// A node has ended the graph: what its siblings gave is not merged, and the run is over.
    pub(super) async fn leave(&self, outputs: &[(usize, Output<S>)], leave: Box<Leave>) -> Result<StepEnd, RunError> {
        let records = self.output_records(outputs.iter().map(|(at, output)| (*at, output)))?;
        self.commit(Commit {
            records,
            run: Some(self.mark(RunStatus::Stopped, None)),
            ..Commit::default()
        })
        .await?;
        self.bill_outer();
        Ok(StepEnd::Left(leave))
    }

    /// Keeps what has finished, and what the others have come to.
    pub(super) async fn suspend(
        &mut self,
        outputs: Vec<(usize, Output<S>)>,
        others: Vec<(usize, End<S>)>,
    ) -> Result<StepEnd, RunError> {
        let mut records = self.output_records(outputs.iter().map(|(at, output)| (*at, output)))?;
        records.extend(self.shared.run.journal.unwritten());
        let mut rest = self.rest(others, &mut records)?;
        if let Some(error) = rest.unsaved {
            // As wherever the store fails: the run stops, and its mark still says that it is to be resumed.
            self.keep_best(records).await;
            return Err(*error);
        }
        if let Some(failed) = rest.failed {
            if let Err(unsaved) = self.settle().await {
                tracing::error!(thread = %self.shared.run.key, error = told(&failed.error), "a task failed in a step whose checkpoint could not be saved");
                return Err(unsaved);
            }
            let error = self.node_error(failed);
            let error = self.give_up(RunStatus::Failed, records, error).await;
            self.tell_asked(&rest.questions).await;
            return Err(error);
        }
        if rest.timed_out {
            let error = RunError::TimeLimit {
                thread: Box::new(self.shared.run.key.clone()),
                limit: self.time_limit.unwrap_or_default(),
            };
            return Err(self.give_up(RunStatus::Stopped, records, error).await);
        }
        if let Some(inside) = rest.over_budget.filter(|_| !rest.cancelled) {
            let spent = self.spent_with(&inside);
            if !self.asks_for_more() {
                let error = self.over_budget(spent);
                return Err(self.give_up(RunStatus::Stopped, records, error).await);
            }
            let question = self.budget_question(spent);
            records.extend(question_records("", std::slice::from_ref(&question)));
            rest.questions.push(question);
        }
        if !rest.cut.is_empty() && !rest.cancelled {
            let error = self.step_timeout(&rest.cut);
            return Err(self.give_up(RunStatus::Stopped, records, error).await);
        }
        let asked = !rest.questions.is_empty() && !rest.cancelled;
        let drained = rest.drained && !rest.paused && !rest.cancelled;
        let status = match (asked, drained) {
            (true, _) => RunStatus::Asked,
            // Whoever looks for what was cut off is to find it.
            (false, true) => RunStatus::Running,
            (false, false) => RunStatus::Stopped,
        };
        self.commit(Commit {
            records,
            run: Some(self.mark(status, None)),
            ..Commit::default()
        })
        .await?;
        if rest.cancelled {
            return Ok(StepEnd::Cancelled);
        }
        self.tell_asked(&rest.questions).await;
        if self.shared.parts.compat == Compat::Recorded && self.shared.run.outer.is_none() {
            self.refuse_conflict(&outputs)?;
        }
        self.tell_kept(&outputs).await;
        if asked {
            return Ok(StepEnd::Asked(rest.questions));
        }
        if drained {
            return Ok(StepEnd::Drained);
        }
        self.shared.tell(EventKind::Paused { at: Stop::Inside }).await;
        Ok(StepEnd::Paused)
    }

    /// Tells what is asked once the questions are kept, so that they can be answered.
    async fn tell_asked(&self, questions: &[Question]) {
        for question in questions {
            let question = question.clone();
            self.shared.tell(EventKind::Asked { question }).await;
        }
    }

    fn rest(&self, others: Vec<(usize, End<S>)>, records: &mut Vec<TaskRecord>) -> Result<Rest, RunError> {
        let mut rest = Rest::default();
        for (at, end) in others {
            let Some(task) = self.tasks.get(at) else { continue };
            match end {
                End::Output(_) => {}
                End::Paused => rest.paused = true,
                End::Drained => rest.drained = true,
                End::OverBudget(error) => rest.over_budget = Some(error),
                End::Asked(questions) => {
                    let asker = self.asker(task, &questions);
                    records.extend(self.take_back_earlier(&asker, &questions));
                    records.extend(question_records(&asker, &questions));
                    rest.questions.extend(questions);
                }
                End::Failed {
                    error,
                    attempts,
                    caught,
                } => {
                    let id = match &caught {
                        None => self.task_id(task),
                        Some(_) => self.handling(task),
                    };
                    if attempts > 1 {
                        records.push(forget(id.clone())?);
                    }
                    records.push(failure_record(id, &Failure::of(&error, attempts))?);
                    rest.failed.get_or_insert(TaskFailed {
                        at,
                        error,
                        attempts,
                        caught,
                    });
                }
                End::CutOff => rest.cut.push(at),
                End::Unsaved(error) => {
                    rest.unsaved.get_or_insert(error);
                }
                End::Cancelled => rest.cancelled = true,
                End::TimeLimit => rest.timed_out = true,
            }
        }
        self.cut_records(&rest, records)?;
        Ok(rest)
    }

    /// Writes down of every task that was cut off that it did not fail itself. One that was handed to a handler stays there.
    fn cut_records(&self, rest: &Rest, records: &mut Vec<TaskRecord>) -> Result<(), RunError> {
        let first = rest.failed.as_ref().and_then(|failed| self.tasks.get(failed.at));
        let why = match first {
            Some(first) => format!("cut off: `{}` failed in the same step", self.task_id(first)),
            None => "cut off: the step took longer than it may".to_owned(),
        };
        for task in rest.cut.iter().filter_map(|at| self.tasks.get(*at)) {
            let id = self.task_id(task);
            let handed = self
                .shared
                .run
                .journal
                .failure(&id)?
                .and_then(|failure| failure.handler);
            let id = handed.map_or(id.clone(), |handler| handler_task(&handler, &id));
            records.push(failure_record(id, &Failure::cancelled(why.clone()))?);
        }
        Ok(())
    }

    /// Keeps what there is while the store fails.
    async fn keep_best(&self, records: Vec<TaskRecord>) {
        let commit = Commit {
            records,
            ..Commit::default()
        };
        if let Err(failure) = self.commit(commit).await {
            tracing::error!(thread = %self.shared.run.key, failure = told(&failure), "what a step has come to could not be written down");
        }
    }

    /// Who has asked: the task, or its handler.
    fn asker(&self, task: &Seed<Payload>, asked: &[Question]) -> String {
        let topology = &self.shared.parts.topology;
        if topology.handler(task.node).is_some() {
            let handling = self.handling(task);
            let prefix = format!("{handling}@");
            if asked.iter().any(|question| question.id.starts_with(&prefix)) {
                return handling;
            }
        }
        self.task_id(task)
    }

    /// The id of the task's handler.
    fn handling(&self, task: &Seed<Payload>) -> String {
        let topology = &self.shared.parts.topology;
        let handler = topology.handler(task.node).unwrap_or(task.node);
        handler_task(topology.name(handler), &self.task_id(task))
    }

    fn step_timeout(&self, cut: &[usize]) -> RunError {
        let tasks = cut.iter().filter_map(|at| self.tasks.get(*at));
        RunError::StepTimeout {
            limit: self.shared.parts.rules.step_timeout.unwrap_or_default(),
            step: self.shared.step,
            thread: Box::new(self.shared.run.key.clone()),
            checkpoint: self.checkpoint(),
            tasks: tasks.map(|task| self.task_id(task)).collect(),
        }
    }

    fn node_error(&self, failed: TaskFailed) -> RunError {
        let task = self.tasks.get(failed.at);
        let topology = &self.shared.parts.topology;
        let node = task
            .map(|task| topology.name(task.node).clone().into_owned())
            .unwrap_or_default();
        let checkpoint = self.checkpoint();
        let (step, thread) = (self.shared.step, Box::new(self.shared.run.key.clone()));
        let TaskFailed { error, attempts, .. } = failed;
        let retryable = error.is_retryable();
        if let (Some(caught), Some(task)) = (failed.caught, task) {
            return RunError::Handler {
                handler: self.handling(task),
                node,
                step,
                thread,
                checkpoint,
                attempts,
                retryable,
                failure: Box::new(caught.failure.clone()),
                source: error.into_source(),
            };
        }
        RunError::Node {
            node,
            task: task.map(|task| self.task_id(task)).unwrap_or_default(),
            step,
            thread,
            checkpoint,
            attempts,
            retryable,
            source: error.into_source(),
        }
    }

    /// Writes down why the run ends, and gives the error back. A store that fails as well is only logged: what the
    /// caller needs to know is the first error.
    pub(super) async fn give_up(&mut self, status: RunStatus, records: Vec<TaskRecord>, error: RunError) -> RunError {
        if let Err(earlier) = self.catch_up().await {
            return earlier;
        }
        let run = Some(self.mark(status, Some(error.to_string())));
        if let Err(failure) = self
            .commit(Commit {
                records,
                run,
                ..Commit::default()
            })
            .await
        {
            tracing::error!(thread = %self.shared.run.key, failure = told(&failure), "a run's failure could not be written down");
        }
        error
    }
}

/// Where an output goes besides its edges, written down.
pub(super) fn store_gotos<S: State>(parts: &Parts<S>, gotos: &[Goto]) -> Result<Vec<StoredGoto>, StateError> {
    let store = |goto: &Goto| {
        let payload = match (&goto.payload, parts.topology.find(&goto.to)) {
            (Some(payload), Some(node)) => encode_payload(&parts.topology, &parts.nodes, node, payload)?,
            _ => None,
        };
        Ok(StoredGoto {
            to: goto.to.clone().into_owned(),
            payload,
        })
    };
    gotos.iter().map(store).collect()
}

/// An output that was written down, as it was.
pub(super) fn restore_output<S: State>(
    parts: &Parts<S>,
    node: usize,
    stored: StoredOutput<S::Update>,
) -> Result<Output<S>, Lost> {
    let goto = |stored: StoredGoto| {
        let payload = match (&stored.payload, parts.topology.find(&stored.to)) {
            (Some(bytes), Some(node)) => decode_payload(&parts.topology, &parts.nodes, node, bytes)?,
            _ => None,
        };
        Ok(Goto {
            to: stored.to.into(),
            payload,
        })
    };
    let by = stored
        .handler
        .map(|name| parts.topology.find(&name).ok_or(Lost::Place(name)));
    let by = by.transpose()?;
    let node = by.unwrap_or(node);
    let route = stored.route.map(|route| route.position(&parts.topology, node));
    let also = stored
        .also
        .into_iter()
        .map(|route| route.position(&parts.topology, node));
    let rare = Rare {
        also: also.collect::<Result<_, Lost>>()?,
        goto: stored.goto.into_iter().map(goto).collect::<Result<_, Lost>>()?,
        leave: stored.leave,
        spend: stored.spend,
        cancelled: stored.cancelled,
        by,
        ..Rare::default()
    };
    let mut output = Output::with(stored.update, rare);
    output.route = route.transpose()?;
    Ok(output)
}

fn failure_record(task: String, failure: &Failure) -> Result<TaskRecord, RunError> {
    Ok(TaskRecord {
        task,
        kind: RecordKind::Failure,
        key: String::new(),
        body: super::encode_record(failure)?,
    })
}

/// Questions as records; an answer that did not fit is withdrawn with them.
pub(super) fn question_records(task: &str, questions: &[Question]) -> Vec<TaskRecord> {
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
