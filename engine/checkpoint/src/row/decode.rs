//! Rows as they are read, whatever database gave them: the columns stand in the same order in all of them.

use std::sync::Arc;

use chrono::DateTime;
use sqlx::{ColumnIndex, Decode, Row, Type};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{CheckpointInfo, RecordKind, RunMark, TaskRecord},
};
use uuid::Uuid;

use super::{corrupt, names, stored_seq};

/// A row of a thread.
pub(crate) struct Columns<'r, R, F> {
    pub(crate) key: &'r ThreadKey,
    pub(crate) row: &'r R,
    /// What the database's own complaint about a column means.
    pub(crate) failed: F,
}

impl<'r, R, F> Columns<'r, R, F>
where
    R: Row,
    F: Fn(sqlx::Error) -> CheckpointError,
    usize: ColumnIndex<R>,
{
    pub(crate) fn get<T>(&self, column: usize) -> Result<T, CheckpointError>
    where
        T: Decode<'r, R::Database> + Type<R::Database>,
    {
        self.row.try_get(column).map_err(&self.failed)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Arc<[u8]>, CheckpointError>
    where
        &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
    {
        self.get::<&[u8]>(column).map(Arc::from)
    }

    /// Seq, parent, id, step, source, run, frontier, fingerprint, state version and time, from the first column on.
    pub(crate) fn info(&self) -> Result<CheckpointInfo, CheckpointError>
    where
        i64: Decode<'r, R::Database> + Type<R::Database>,
        Uuid: Decode<'r, R::Database> + Type<R::Database>,
        &'r str: Decode<'r, R::Database> + Type<R::Database>,
        &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
    {
        let source: &str = self.get(4)?;
        let (version, created_at): (i64, i64) = (self.get(8)?, self.get(9)?);
        Ok(CheckpointInfo {
            seq: stored_seq(self.key, self.get(0)?)?,
            parent: self
                .get::<Option<i64>>(1)?
                .map(|seq| stored_seq(self.key, seq))
                .transpose()?,
            id: self.get(2)?,
            step: self.get(3)?,
            source: names::source_named(source)
                .ok_or_else(|| self.corrupt(format!("a checkpoint of the unknown source `{source}`")))?,
            run: self.get::<Option<Uuid>>(5)?.map(Into::into),
            frontier: self.bytes(6)?,
            fingerprint: self.get(7)?,
            state_version: u32::try_from(version)
                .map_err(|_| self.corrupt(format!("a state of the impossible version {version}")))?,
            created_at: DateTime::from_timestamp_micros(created_at)
                .ok_or_else(|| self.corrupt(format!("a checkpoint of the impossible time {created_at}")))?,
        })
    }

    /// Run, graph, status and error, from `first` on.
    pub(crate) fn run_mark(&self, first: usize) -> Result<Option<RunMark>, CheckpointError>
    where
        Uuid: Decode<'r, R::Database> + Type<R::Database>,
        String: Decode<'r, R::Database> + Type<R::Database>,
        &'r str: Decode<'r, R::Database> + Type<R::Database>,
    {
        let Some(run) = self.get::<Option<Uuid>>(first)? else {
            return Ok(None);
        };
        let status: &str = self.get(first + 2)?;
        Ok(Some(RunMark {
            run: run.into(),
            graph: self.get::<String>(first + 1)?.into(),
            status: names::status_named(status)
                .ok_or_else(|| self.corrupt(format!("a run of the unknown status `{status}`")))?,
            error: self.get(first + 3)?,
        }))
    }

    /// Task, kind and key, from `first` on.
    pub(crate) fn record(&self, first: usize, body: Arc<[u8]>) -> Result<TaskRecord, CheckpointError>
    where
        String: Decode<'r, R::Database> + Type<R::Database>,
        &'r str: Decode<'r, R::Database> + Type<R::Database>,
    {
        let kind: &str = self.get(first + 1)?;
        Ok(TaskRecord {
            task: self.get(first)?,
            kind: RecordKind::from_name(kind)
                .ok_or_else(|| self.corrupt(format!("a record of the unknown kind `{kind}`")))?,
            key: self.get(first + 2)?,
            body,
        })
    }

    fn corrupt(&self, message: String) -> CheckpointError {
        corrupt(self.key, message)
    }
}
