//! Writing a thread out, line by line.

use super::{
    THREAD_FORMAT,
    line::{Body, Header, Line, Record, Row, Standing, Stored},
};
use crate::{
    checkpoint::{At, Checkpoint, CheckpointError, Checkpointer, Page, Seq},
    graph::Graph,
    id::{Namespace, ThreadKey},
    run::error::RunError,
    state::{State, StateError},
};

/// What comes next.
enum Next {
    Header,
    /// The thread of one graph of the nest.
    Thread(Namespace),
    /// A checkpoint, and the last of its thread.
    Checkpoint(Seq, Seq),
    End,
}

/// An export under way.
pub(super) struct Export<S: State> {
    graph: Graph<S>,
    key: ThreadKey,
    next: Next,
}

impl<S: State> Export<S> {
    pub(super) fn new(graph: &Graph<S>, thread: &ThreadKey) -> Self {
        Self {
            graph: graph.clone(),
            key: ThreadKey {
                namespace: Namespace::ROOT,
                ..thread.clone()
            },
            next: Next::Header,
        }
    }

    /// The next line, or `None` after the last.
    pub(super) async fn next_line(&mut self) -> Result<Option<String>, RunError> {
        let graph = self.graph.clone();
        let store = graph.kept()?;
        let line = loop {
            match std::mem::replace(&mut self.next, Next::End) {
                Next::Header => {
                    self.next = Next::Thread(Namespace::ROOT);
                    break self.header();
                }
                Next::Thread(namespace) => {
                    self.key.namespace = namespace;
                    if let Some(standing) = self.standing(store).await? {
                        break Line::Thread(standing);
                    }
                    // A graph that was about to begin and has not.
                    self.next = self.after(store).await?;
                }
                Next::Checkpoint(seq, last) => {
                    self.next = if seq < last {
                        Next::Checkpoint(Seq(seq.0 + 1), last)
                    } else {
                        self.after(store).await?
                    };
                    if let Some(checkpoint) = store.get(&self.key, At::Seq(seq)).await? {
                        break Line::Checkpoint(Box::new(row(checkpoint)));
                    }
                }
                Next::End => return Ok(None),
            }
        };
        let written = serde_json::to_string(&line);
        written
            .map(Some)
            .map_err(|error| StateError::Encode(error.to_string()).into())
    }

    fn header(&self) -> Line {
        let shape = &self.graph.parts.shape;
        Line::Export(Header {
            format: THREAD_FORMAT,
            graph: self.graph.name().to_owned(),
            fingerprint: self.graph.fingerprint(),
            state_version: S::version(shape),
            fields: S::fields(shape).iter().map(|field| field.name.to_string()).collect(),
        })
    }

    async fn standing(&mut self, store: &dyn Checkpointer) -> Result<Option<Standing>, RunError> {
        let newest = Page { before: None, limit: 1 };
        let newest = store.list(&self.key, newest).await?;
        let (Some(newest), Some(head)) = (newest.first(), store.get(&self.key, At::Head).await?) else {
            if self.key.namespace.is_root() {
                return Err(RunError::UnknownThread {
                    thread: self.key.clone(),
                });
            }
            return Ok(None);
        };
        self.next = Next::Checkpoint(Seq(1), newest.seq);
        Ok(Some(Standing {
            namespace: self.key.namespace.as_str().to_owned(),
            branches: store.branches(&self.key).await?,
            tags: match store.tags(&self.key).await {
                Err(CheckpointError::Unsupported { .. }) => Vec::new(),
                tags => tags?,
            },
            run: head.run.map(Into::into),
        }))
    }

    /// The next graph of the nest, by name.
    async fn after(&self, store: &dyn Checkpointer) -> Result<Next, RunError> {
        let next = store.inner(&self.key, &self.key.namespace, 1).await?;
        Ok(next.into_iter().next().map_or(Next::End, Next::Thread))
    }
}

fn row(checkpoint: Checkpoint) -> Row {
    let Checkpoint {
        info, parts, records, ..
    } = checkpoint;
    let own = || {
        let last = parts.last();
        last.map_or_else(|| Body::Bytes(String::new()), |part| Body::of(part))
    };
    Row {
        seq: info.seq,
        parent: info.parent,
        id: info.id,
        step: info.step,
        source: info.source,
        run: info.run,
        created_at: info.created_at,
        fingerprint: info.fingerprint,
        state_version: info.state_version,
        // The parts begin at the nearest snapshot.
        state: match parts.as_slice() {
            [_] => Stored::Snapshot(own()),
            all if info.parent.is_none() => Stored::Line(all.iter().map(|part| Body::of(part)).collect()),
            _ => Stored::Delta(own()),
        },
        frontier: Body::of(&info.frontier),
        records: records
            .into_iter()
            .map(|record| Record {
                task: record.task,
                kind: record.kind,
                key: record.key,
                body: Body::of(&record.body),
            })
            .collect(),
    }
}
