//! Reading a thread: its state at any checkpoint, and its history.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    error::RunError,
    frontier::Frontier,
    open::{decode, open_questions},
};
use crate::{
    ask::Question,
    checkpoint::{At, CheckpointInfo, CheckpointSource, Checkpointer, Page, RunMark, Seq},
    graph::Graph,
    id::{RunId, ThreadKey},
    state::State,
};

/// A thread's state at one checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot<S> {
    /// The state.
    pub state: S,
    /// What is known about the checkpoint.
    pub entry: HistoryEntry,
    /// Questions that wait for an answer.
    pub questions: Vec<Question>,
    /// The thread's newest run.
    pub run: Option<RunMark>,
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
    fn of(info: &CheckpointInfo) -> Result<Self, RunError> {
        Ok(Self {
            seq: info.seq,
            parent: info.parent,
            id: info.id,
            step: info.step,
            source: info.source,
            run: info.run,
            next: Frontier::decode(&info.frontier)?.names(),
            created_at: info.created_at,
        })
    }
}

impl<S: State> Graph<S> {
    /// The state of a thread at a checkpoint, or `None` if there is none.
    ///
    /// # Errors
    /// [`RunError::NoCheckpointer`], or what the store or the stored state says.
    pub async fn state(&self, thread: &ThreadKey, at: At) -> Result<Option<Snapshot<S>>, RunError> {
        let Some(checkpoint) = self.kept()?.get(thread, at).await? else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            state: decode(&self.parts.shape, &checkpoint)?,
            entry: HistoryEntry::of(&checkpoint.info)?,
            questions: open_questions(&checkpoint.records)
                .into_iter()
                .map(|(_, question)| question)
                .collect(),
            run: checkpoint.run,
        }))
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
            .map(HistoryEntry::of)
            .collect()
    }

    /// The threads of this graph whose last run was cut off, oldest first: what to resume after a crash.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn unfinished(&self, limit: u32) -> Result<Vec<ThreadKey>, RunError> {
        Ok(self.kept()?.unfinished(self.name(), limit).await?)
    }

    fn kept(&self) -> Result<&dyn Checkpointer, RunError> {
        self.store.as_deref().ok_or_else(|| RunError::NoCheckpointer {
            graph: self.name().to_owned(),
        })
    }
}
