//! Reading a thread: its state at any checkpoint, and its history.

use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::{
    answer::open_questions,
    command::with_commanded,
    error::RunError,
    frontier::{Frontier, StoredTask},
    guard::guarded,
    merge::overlay,
    open::decode,
    recorded,
    retry::retrying,
    step::StoredOutput,
    version::kept_output,
};
use crate::{
    ask::Question,
    checkpoint::{At, Checkpoint, CheckpointInfo, CheckpointSource, Checkpointer, Page, RecordKind, RunMark, Seq},
    dynamic::Compat,
    graph::{Graph, Topology},
    id::{RunId, ThreadKey},
    node::{Failure, FailureKind, handler_task},
    state::{Changes, State, StateError},
};

/// A thread's state at one checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot<S> {
    /// The state.
    pub state: S,
    /// What is known about the checkpoint.
    pub entry: HistoryEntry,
    /// The tasks of the step that starts here, finished or not.
    pub tasks: Vec<TaskState>,
    /// Questions that wait for an answer.
    pub questions: Vec<Question>,
    /// The thread's newest run.
    pub run: Option<RunMark>,
}

/// How far a task of an unfinished step has come.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskState {
    /// Its node.
    pub node: String,
    /// Its id inside the step.
    pub task: String,
    /// Whether it has finished; it will not run again.
    pub finished: bool,
    /// Whether a join has cancelled it; it will not run again.
    pub cancelled: bool,
    /// How it failed, if it did and has not finished since. If a handler has taken over, this is what it was handed.
    pub error: Option<Failure>,
    /// How its handler failed, if it did.
    pub handler_error: Option<Failure>,
    /// Whether it was cut off, because a sibling failed or the step took too long. It did not fail itself, and runs again.
    pub cut_off: bool,
    /// Whether it waits for another attempt, or is at it.
    pub retrying: Option<Retrying>,
    /// What it asks.
    pub questions: Vec<Question>,
}

/// A task of which an attempt has failed and another follows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Retrying {
    /// How many attempts have failed.
    pub failed: u32,
    /// When the next is due, or was.
    pub due: DateTime<Utc>,
    /// How the last one failed.
    pub failure: Option<Failure>,
}

/// A checkpoint in a thread's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Its number on the thread.
    pub seq: Seq,
    /// The checkpoint it was made from.
    pub parent: Option<Seq>,
    /// The name shown outside.
    pub id: Uuid,
    /// Number of the step that ended.
    pub step: i64,
    /// Why it was written.
    pub source: CheckpointSource,
    /// The run that wrote it.
    pub run: Option<RunId>,
    /// Nodes of the tasks that follow, one for each task.
    pub next: Vec<String>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

impl HistoryEntry {
    pub(super) fn of(info: &CheckpointInfo, topology: &Topology) -> Result<Self, RunError> {
        Ok(Self {
            seq: info.seq,
            parent: info.parent,
            id: info.id,
            step: info.step,
            source: info.source,
            run: info.run,
            next: Frontier::decode(&info.frontier)?.names_in(topology),
            created_at: info.created_at,
        })
    }
}

impl<S: State> Graph<S> {
    /// The state of a thread at a checkpoint, or `None` if there is none.
    ///
    /// At the head it is the live state: updates of tasks that have finished in the unfinished step, and what a resumed run
    /// was told to write, are in it, tasks that it was told to run as well are among the tasks, and `next` names only those
    /// that are left. At any other checkpoint it is the
    /// state as it was saved, with all tasks that followed.
    ///
    /// # Errors
    /// [`RunError::NoCheckpointer`], or what the store or the stored state says.
    pub async fn state(&self, thread: &ThreadKey, at: At) -> Result<Option<Snapshot<S>>, RunError> {
        let Some(checkpoint) = self.kept()?.get(thread, at).await? else {
            return Ok(None);
        };
        let mut state = decode::<S>(&self.parts.shape, &checkpoint)?;
        let mut entry = HistoryEntry::of(&checkpoint.info, &self.parts.topology)?;
        let mut tasks = Vec::new();
        let mut questions = Vec::new();
        if at == At::Head {
            let mut changes = Changes::default();
            let kept = self.kept_updates(&checkpoint)?;
            guarded(|| {
                for command in kept.commands {
                    state.apply(command, &mut changes);
                }
                overlay(&mut state, S::fields(&self.parts.shape), kept.tasks, &mut changes);
            })
            .map_err(|panic| RunError::Panic {
                doing: "merging what is kept of an unfinished step".to_owned(),
                task: None,
                step: entry.step + 1,
                thread: Box::new(thread.clone()),
                checkpoint: Some(entry.seq),
                message: panic.message,
            })?;
            tasks = task_states(&checkpoint, &self.parts.topology, self.parts.compat)?;
            let left = tasks.iter().filter(|task| !task.finished);
            entry.next = left.map(|task| task.node.clone()).collect();
            questions = tasks.iter().flat_map(|task| task.questions.clone()).collect();
            // Those of the run itself.
            let own = open_questions(&checkpoint.records).into_iter();
            questions.extend(own.filter(|(task, _)| task.is_empty()).map(|(_, question)| question));
        } else {
            state = recorded::with_commands(self.parts.compat, state, &checkpoint, &mut Changes::default())?;
        }
        Ok(Some(Snapshot {
            state,
            entry,
            tasks,
            questions,
            run: checkpoint.run,
        }))
    }

    /// What was written in the unfinished step: by commands, which have acted already; and by tasks, in the order in which
    /// it will be merged, nodes by name, then sends.
    pub(super) fn kept_updates(&self, checkpoint: &Checkpoint) -> Result<Kept<S::Update>, RunError> {
        let ids = task_ids(&tasks_of(checkpoint, &self.parts.topology, self.parts.compat)?);
        let mut kept = Vec::new();
        for record in &checkpoint.records {
            let at = match record.kind {
                RecordKind::Command => None,
                RecordKind::Output => match (ids.iter().position(|id| *id == record.task), self.parts.compat) {
                    // A task that a command has added; the strict engine knows it.
                    (None, Compat::Recorded) => continue,
                    (None, Compat::Strict) => Some(ids.len()),
                    (at, _) => at,
                },
                _ => continue,
            };
            let stored = kept_output::<S>(&self.parts.shape, checkpoint.info.state_version, &record.body)?;
            kept.push((at, (record.task.clone(), stored.handler), stored.update));
        }
        kept.sort_by_key(|(at, ..)| *at);
        let tasks = kept.partition_point(|(at, ..)| at.is_none());
        let tasks = kept.split_off(tasks);
        let (by, tasks) = tasks.into_iter().map(|(_, by, update)| (by, update)).unzip();
        Ok(Kept {
            commands: kept.into_iter().map(|(.., update)| update).collect(),
            tasks,
            by,
        })
    }

    /// A thread's checkpoints, newest first, without their states.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn history(&self, thread: &ThreadKey, page: Page) -> Result<Vec<HistoryEntry>, RunError> {
        self.kept()?
            .list(thread, page)
            .await?
            .iter()
            .map(|info| HistoryEntry::of(info, &self.parts.topology))
            .collect()
    }

    /// The threads of this graph whose last run was cut off, oldest first: what to resume after a crash.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn unfinished(&self, limit: u32) -> Result<Vec<ThreadKey>, RunError> {
        Ok(self.kept()?.unfinished(self.name(), limit).await?)
    }

    pub(super) fn kept(&self) -> Result<&dyn Checkpointer, RunError> {
        self.store.as_deref().ok_or_else(|| RunError::NoCheckpointer {
            graph: self.name().to_owned(),
        })
    }
}

/// What was written in an unfinished step, in the order in which it acts.
pub(super) struct Kept<U> {
    pub(super) commands: Vec<U>,
    pub(super) tasks: Vec<U>,
    /// The ids of those tasks, each with the handler that has run for it.
    pub(super) by: Vec<(String, Option<String>)>,
}

/// The tasks of the step that begins at a checkpoint.
pub(super) fn tasks_of(
    checkpoint: &Checkpoint,
    topology: &Topology,
    compat: Compat,
) -> Result<Vec<StoredTask>, StateError> {
    let frontier = Frontier::decode(&checkpoint.info.frontier)?;
    match compat {
        Compat::Strict => with_commanded(frontier, &checkpoint.records, topology),
        Compat::Recorded => Ok(frontier.tasks),
    }
}

fn task_ids(tasks: &[StoredTask]) -> Vec<String> {
    let id = |task: &StoredTask| match &task.send {
        None => task.node.clone(),
        Some((number, _)) => format!("{}#{number}", task.node),
    };
    tasks.iter().map(id).collect()
}

fn task_states(checkpoint: &Checkpoint, topology: &Topology, compat: Compat) -> Result<Vec<TaskState>, RunError> {
    let tasks = tasks_of(checkpoint, topology, compat)?;
    let open = match compat {
        Compat::Strict => open_questions(&checkpoint.records),
        Compat::Recorded => recorded::shown(&checkpoint.records),
    };
    let state = |(id, task): (String, &StoredTask)| {
        let of = |task: &str, kind| {
            let found = checkpoint.records.iter().find(|r| r.kind == kind && r.task == task);
            found.map(|record| record.body.as_ref())
        };
        let output = of(&id, RecordKind::Output).map(super::decode_record);
        let output: Option<StoredOutput<IgnoredAny>> = output.transpose()?;
        let cancelled = output.as_ref().is_some_and(|output| output.cancelled.is_some());
        let finished = output.is_some();
        let failure = |task: &str| {
            of(task, RecordKind::Failure)
                .filter(|_| !finished)
                .map(Failure::decode)
                .transpose()
        };
        let error = failure(&id)?;
        let handling = error.as_ref().and_then(|failure| failure.handler.as_deref());
        let handling = handling.map(|handler| handler_task(handler, &id));
        let by_handler = handling.as_deref().map(failure).transpose()?.flatten();
        let attempt = of(handling.as_deref().unwrap_or(&id), RecordKind::Attempt).filter(|_| !finished);
        let (error, cut) = told_apart(error);
        let (handler_error, handler_cut) = told_apart(by_handler);
        let own = |task: &String| *task == id || Some(task) == handling.as_ref();
        let own = open.iter().filter(|(task, _)| own(task) && !finished);
        Ok(TaskState {
            node: topology.current(&task.node).to_owned(),
            questions: own.map(|(_, question)| question.clone()).collect(),
            retrying: attempt.map(retrying).transpose()?.flatten(),
            task: id,
            finished: finished && !cancelled,
            cancelled,
            error,
            handler_error,
            cut_off: cut || handler_cut,
        })
    };
    task_ids(&tasks).into_iter().zip(&tasks).map(state).collect()
}

/// A failure of the task's own, and whether it was cut off instead.
fn told_apart(failure: Option<Failure>) -> (Option<Failure>, bool) {
    match failure {
        Some(failure) if failure.kind == FailureKind::Cancelled => (None, true),
        failure => (failure, false),
    }
}
