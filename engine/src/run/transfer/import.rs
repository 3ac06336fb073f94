//! Reading a thread in, line by line.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    THREAD_FORMAT, TransferError,
    line::{Body, Line, Record, Row, Standing, Stored},
};
use crate::{
    checkpoint::{
        At, Branch, Checkpointer, Commit, Epoch, NewCheckpoint, Payload, RunMark, RunStatus, Seq, Tag, TaskRecord,
        Thinning,
    },
    graph::Graph,
    id::{Namespace, ThreadKey},
    state::State,
};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 64 << 20;

/// An import under way.
pub(super) struct Import {
    store: Arc<dyn Checkpointer>,
    graph: String,
    key: ThreadKey,
    line: usize,
    begun: bool,
    thread: Option<Thread>,
}

/// The thread that is being written.
struct Thread {
    key: ThreadKey,
    epoch: Epoch,
    head: Option<Seq>,
    /// The numbers that its checkpoints had, with those that they have now: where some were taken out, the others close up.
    numbers: BTreeMap<Seq, Seq>,
    branches: Vec<Branch>,
    tags: Vec<Tag>,
    run: Option<RunMark>,
}

impl Import {
    pub(super) async fn begin<S: State>(graph: &Graph<S>, thread: &ThreadKey) -> Result<Self, TransferError> {
        graph.kept()?;
        let store = graph.store.clone().ok_or_else(|| crate::RunError::NoCheckpointer {
            graph: graph.name().to_owned(),
        })?;
        let key = ThreadKey {
            namespace: Namespace::ROOT,
            ..thread.clone()
        };
        let inside = store.inner(&key, &Namespace::ROOT, 1).await?;
        if store.get(&key, At::Head).await?.is_some() || !inside.is_empty() {
            return Err(TransferError::Exists { thread: key });
        }
        Ok(Self {
            store,
            graph: graph.name().to_owned(),
            key,
            line: 0,
            begun: false,
            thread: None,
        })
    }

    fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, TransferError> {
        Err(TransferError::Line {
            line: self.line,
            problem: problem.into(),
        })
    }

    /// Takes the next line.
    pub(super) async fn take(&mut self, line: &str) -> Result<(), TransferError> {
        self.line += 1;
        if line.len() > LINE_BYTES_MAX {
            return self.wrong(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        match serde_json::from_str(line) {
            Err(error) => self.wrong(error.to_string()),
            Ok(Line::Export(header)) if self.line == 1 => {
                if header.format != THREAD_FORMAT {
                    return Err(TransferError::Format { found: header.format });
                }
                if header.graph != self.graph {
                    return Err(TransferError::OtherGraph {
                        graph: self.graph.clone(),
                        found: header.graph,
                    });
                }
                Ok(())
            }
            Ok(Line::Export(_)) => self.wrong("another export begins here"),
            Ok(_) if self.line == 1 => self.wrong("the first line says what was exported, and this does not"),
            Ok(Line::Thread(standing)) => {
                self.settle().await?;
                self.open(standing).await
            }
            Ok(Line::Checkpoint(row)) => self.write(*row).await,
        }
    }

    async fn open(&mut self, standing: Standing) -> Result<(), TransferError> {
        if self.begun == standing.namespace.is_empty() {
            return self.wrong("the outermost thread comes first, and once");
        }
        let key = ThreadKey {
            namespace: Namespace::from_stored(&standing.namespace),
            ..self.key.clone()
        };
        self.begun = true;
        self.thread = Some(Thread {
            epoch: self.store.claim(&key).await?,
            key,
            head: None,
            numbers: BTreeMap::new(),
            branches: standing.branches,
            tags: standing.tags,
            run: standing.run.map(Into::into),
        });
        Ok(())
    }

    fn bytes(&self, body: &Body) -> Result<Arc<[u8]>, TransferError> {
        match body.bytes() {
            Some(bytes) => Ok(bytes),
            None => self.wrong("a body cannot be read"),
        }
    }

    async fn write(&mut self, row: Row) -> Result<(), TransferError> {
        let Some(thread) = &self.thread else {
            return self.wrong("a checkpoint stands before its thread");
        };
        if let Some((last, _)) = thread.numbers.last_key_value().filter(|(last, _)| row.seq <= **last) {
            return self.wrong(format!("checkpoint {} stands behind {}", row.seq.0, last.0));
        }
        let parent = row.parent.map(|parent| self.number(thread, parent)).transpose()?;
        let parts = match &row.state {
            Stored::Snapshot(body) | Stored::Delta(body) => vec![self.bytes(body)?],
            Stored::Line(bodies) => bodies.iter().map(|body| self.bytes(body)).collect::<Result<_, _>>()?,
        };
        let Some(own) = parts.first().map(Arc::clone) else {
            return self.wrong("a checkpoint is without a state");
        };
        // A store takes every checkpoint but the first for the child of another, and its state for one body.
        let alone = parent.is_none() && (thread.head.is_some() || parts.len() > 1);
        let checkpoint = NewCheckpoint {
            id: row.id,
            step: row.step,
            source: row.source,
            payload: match &row.state {
                Stored::Snapshot(_) | Stored::Line(_) => Payload::Snapshot(own),
                Stored::Delta(_) => Payload::Delta(own),
            },
            frontier: self.bytes(&row.frontier)?,
            fingerprint: row.fingerprint,
            state_version: row.state_version,
            created_at: row.created_at,
        };
        let records = row.records.into_iter().map(|record| self.record(record));
        let records: Vec<_> = records.collect::<Result<_, _>>()?;
        let commit = Commit {
            checkpoint: Some(checkpoint),
            parent: parent.filter(|parent| Some(*parent) != thread.head),
            run: row.run.map(|run| RunMark {
                run,
                graph: self.graph.clone().into(),
                status: RunStatus::Stopped,
                error: None,
            }),
            ..Commit::default()
        };
        let (store, key, epoch) = (&self.store, &thread.key, thread.epoch);
        let mut head = store.commit(key, epoch, thread.head, commit).await?;
        if let Some(head) = head.filter(|_| alone) {
            let rebased = Thinning {
                rebased: vec![(head, parts)],
                removed: Vec::new(),
            };
            store.thin(key, rebased).await?;
        }
        if !records.is_empty() {
            let commit = Commit {
                records,
                ..Commit::default()
            };
            head = store.commit(key, epoch, head, commit).await?;
        }
        if let Some(thread) = &mut self.thread {
            thread.head = head;
            thread.numbers.extend(head.map(|head| (row.seq, head)));
        }
        Ok(())
    }

    fn record(&self, record: Record) -> Result<TaskRecord, TransferError> {
        Ok(TaskRecord {
            body: self.bytes(&record.body)?,
            task: record.task,
            kind: record.kind,
            key: record.key,
        })
    }

    /// The number that a checkpoint has now.
    fn number(&self, thread: &Thread, seq: Seq) -> Result<Seq, TransferError> {
        match thread.numbers.get(&seq) {
            Some(number) => Ok(*number),
            None => self.wrong(format!("checkpoint {} is named and is not there", seq.0)),
        }
    }

    /// The thread's checkpoints are all there: its branches and its run become as they were.
    async fn settle(&mut self) -> Result<(), TransferError> {
        let Some(mut thread) = self.thread.take() else {
            return Ok(());
        };
        // The one that the thread is on comes last, and stays.
        thread.branches.sort_by_key(|branch| branch.current);
        for branch in &thread.branches {
            let (key, epoch, head) = (&thread.key, thread.epoch, self.number(&thread, branch.head)?);
            self.store.branch(key, epoch, head, &branch.name).await?;
            thread.head = Some(head);
        }
        for tag in &thread.tags {
            let at = self.number(&thread, tag.seq)?;
            self.store.tag(&thread.key, &tag.name, Some(at)).await?;
        }
        let commit = Commit {
            run: thread.run,
            ..Commit::default()
        };
        self.store
            .commit(&thread.key, thread.epoch, thread.head, commit)
            .await?;
        Ok(())
    }

    /// Ends the import; if it has failed, nothing of it stays.
    pub(super) async fn end(mut self, taken: Result<(), TransferError>) -> Result<(), TransferError> {
        let ended = match taken {
            Ok(()) if self.thread.is_none() => {
                self.line += 1;
                self.wrong("the lines end before a thread was told")
            }
            Ok(()) => self.settle().await,
            Err(error) => Err(error),
        };
        if ended.is_err() && self.begun {
            self.store.delete(&self.key).await?;
        }
        ended
    }
}
