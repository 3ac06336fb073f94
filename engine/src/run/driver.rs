//! The loop of a run: a step's tasks, then its [barrier](super::barrier), until nothing is left or something stops it.

use std::time::Duration;

use super::{
    Outcome, StalledJoin,
    barrier::Sizes,
    busy::Hold,
    error::RunError,
    event::EventKind,
    owned,
    plan::{Joins, Seed},
    step::{Crowd, End, Shared, StoredOutput, run_one},
};
use crate::{
    ask::Question,
    checkpoint::{Commit, RecordKind, RunStatus, TaskRecord},
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

    pub(super) fn task_id(&self, task: &Seed<Payload>) -> String {
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
    pub(super) async fn give_up(&self, status: RunStatus, records: Vec<TaskRecord>, error: RunError) -> RunError {
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
