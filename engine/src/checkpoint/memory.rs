//! The reference store: everything in memory, gone with the process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    At, Branch, Checkpoint, CheckpointError, CheckpointInfo, Checkpointer, Commit, Epoch, MAIN, OutboxMessage, Page,
    Payload, RecordKind, RunMark, RunStatus, Seq, StoreDurability, Tag, TaskRecord, Thinning,
};
use crate::id::{Namespace, RunId, TenantId, ThreadId, ThreadKey};

/// Keeps checkpoints in memory. For tests, and for runs that need not survive the process.
#[derive(Debug, Default)]
pub struct Memory {
    threads: Mutex<HashMap<ThreadKey, Thread>>,
    /// The newest epoch of any thread: one count for all, so that it outlives a deleted thread.
    epochs: AtomicU64,
}

#[derive(Debug, Default)]
struct Thread {
    epoch: u64,
    head: Option<Seq>,
    run: Option<RunMark>,
    /// In order; numbers are missing where checkpoints were taken out.
    rows: Vec<Row>,
    /// Number of the newest checkpoint that there ever was.
    last: u64,
    /// The branch that the thread is on, if another than [`MAIN`].
    branch: Option<String>,
    /// Where the others stand.
    branches: BTreeMap<String, Seq>,
    tags: BTreeMap<String, Seq>,
    outbox: Vec<OutboxMessage>,
}

#[derive(Debug)]
struct Row {
    info: CheckpointInfo,
    state: Own,
    records: BTreeMap<(String, RecordKind, String), TaskRecord>,
}

/// What a row itself says of the state.
#[derive(Debug)]
enum Own {
    Delta(Arc<[u8]>),
    /// A snapshot, and the deltas upon it where there was a line once.
    Whole(Vec<Arc<[u8]>>),
}

impl From<Payload> for Own {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Delta(bytes) => Self::Delta(bytes),
            Payload::Snapshot(bytes) => Self::Whole(vec![bytes]),
        }
    }
}

impl Thread {
    fn position(&self, seq: Seq) -> Option<usize> {
        // Nothing is missing before most.
        let likely = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        match self.rows.get(likely) {
            Some(row) if row.info.seq == seq => Some(likely),
            _ => self.rows.binary_search_by_key(&seq, |row| row.info.seq).ok(),
        }
    }

    fn row(&self, seq: Seq) -> Option<&Row> {
        self.rows.get(self.position(seq)?)
    }

    fn row_mut(&mut self, seq: Seq) -> Option<&mut Row> {
        let position = self.position(seq)?;
        self.rows.get_mut(position)
    }

    fn find(&self, at: At) -> Option<&Row> {
        match at {
            At::Head => self.head.and_then(|head| self.row(head)),
            At::Seq(seq) => self.row(seq),
            At::Id(id) => self.rows.iter().find(|row| row.info.id == id),
        }
    }

    /// The nearest snapshot at or above `row`, then each delta down to it.
    fn parts(&self, row: &Row) -> Vec<Arc<[u8]>> {
        let mut parts = Vec::new();
        let mut next = Some(row);
        while let Some(row) = next {
            next = match &row.state {
                Own::Whole(own) => {
                    parts.extend(own.iter().rev().cloned());
                    None
                }
                Own::Delta(delta) => {
                    parts.push(Arc::clone(delta));
                    row.info.parent.and_then(|parent| self.row(parent))
                }
            };
        }
        parts.reverse();
        parts
    }

    fn write(
        &mut self,
        key: &ThreadKey,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        if self.head != expected {
            return Err(CheckpointError::Conflict {
                key: key.clone(),
                expected,
                found: self.head,
            });
        }
        if let Some(seq) = commit.parent.filter(|parent| self.row(*parent).is_none()) {
            return Err(CheckpointError::NoCheckpoint { key: key.clone(), seq });
        }
        if !commit.records.is_empty() {
            let Some(row) = expected.and_then(|seq| self.row_mut(seq)) else {
                return Err(CheckpointError::NoCheckpoint {
                    key: key.clone(),
                    seq: expected.unwrap_or(Seq(0)),
                });
            };
            for record in commit.records {
                row.records
                    .insert((record.task.clone(), record.kind, record.key.clone()), record);
            }
        }
        if let Some(run) = commit.run {
            self.run = Some(run);
        }
        let parent = commit.parent.or(expected);
        if let Some(new) = commit.checkpoint {
            self.last += 1;
            let seq = Seq(self.last);
            let info = CheckpointInfo {
                seq,
                parent,
                id: new.id,
                step: new.step,
                source: new.source,
                run: self.run.as_ref().map(|run| run.run),
                frontier: new.frontier,
                fingerprint: new.fingerprint,
                state_version: new.state_version,
                created_at: new.created_at,
            };
            self.rows.push(Row {
                info,
                state: new.payload.into(),
                records: BTreeMap::new(),
            });
            self.head = Some(seq);
        }
        for message in commit.outbox {
            if self.outbox.iter().all(|waiting| waiting.id != message.id) {
                self.outbox.push(message);
            }
        }
        Ok(self.head)
    }

    fn thin(&mut self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let Thinning { rebased, removed } = thinning;
        let removed: BTreeSet<Seq> = removed.into_iter().collect();
        let goes = |seq: &Seq| removed.contains(seq);
        let named = self
            .branches
            .values()
            .chain(self.tags.values())
            .chain(self.head.as_ref());
        let parents = self.rows.iter().filter(|row| {
            let stands_alone = rebased.iter().any(|(seq, _)| *seq == row.info.seq);
            !goes(&row.info.seq) && !stands_alone
        });
        let parents = parents.filter_map(|row| row.info.parent.as_ref());
        if let Some(seq) = named.chain(parents).find(|seq| goes(seq)).copied() {
            return Err(CheckpointError::InUse { key: key.clone(), seq });
        }
        for (seq, parts) in rebased {
            if let Some(row) = self.row_mut(seq) {
                row.state = Own::Whole(parts);
                row.info.parent = None;
            }
        }
        self.rows.retain(|row| !removed.contains(&row.info.seq));
        Ok(())
    }

    fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or(MAIN)
    }

    fn running(&self, graph: &str) -> Option<RunId> {
        self.run
            .as_ref()
            .filter(|run| run.graph == graph && run.status == RunStatus::Running)
            .map(|run| run.run)
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ThreadKey, Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Checkpointer for Memory {
    fn durability(&self) -> StoreDurability {
        StoreDurability::Memory
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        let mut threads = self.lock();
        let thread = threads.entry(key.clone()).or_default();
        // Drawn under the lock, so that the later claim gets the higher number.
        thread.epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Epoch(thread.epoch))
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        match self.lock().get_mut(key) {
            Some(thread) if thread.epoch == epoch.0 => thread.write(key, expected, commit),
            _ => Err(CheckpointError::Fenced { key: key.clone() }),
        }
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        let threads = self.lock();
        let Some(thread) = threads.get(key) else {
            return Ok(None);
        };
        Ok(thread.find(at).map(|row| Checkpoint {
            info: row.info.clone(),
            parts: thread.parts(row),
            records: row.records.values().cloned().collect(),
            run: thread.run.clone(),
        }))
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let threads = self.lock();
        let Some(thread) = threads.get(key) else {
            return Ok(Vec::new());
        };
        let older = thread
            .rows
            .iter()
            .rev()
            .filter(|row| page.before.is_none_or(|before| row.info.seq < before));
        Ok(older.take(page.limit as usize).map(|row| row.info.clone()).collect())
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        let mut threads = self.lock();
        let Some(thread) = threads.get_mut(key).filter(|thread| thread.epoch == epoch.0) else {
            return Err(CheckpointError::Fenced { key: key.clone() });
        };
        if thread.row(from).is_none() {
            return Err(CheckpointError::NoCheckpoint {
                key: key.clone(),
                seq: from,
            });
        }
        if let Some(head) = thread.head {
            let left = thread.branch().to_owned();
            thread.branches.insert(left, head);
        }
        thread.branches.remove(name);
        thread.branch = Some(name.to_owned());
        thread.head = Some(from);
        Ok(())
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        let threads = self.lock();
        let Some((thread, head)) = threads.get(key).and_then(|thread| Some((thread, thread.head?))) else {
            return Ok(Vec::new());
        };
        let branch = |name: &str, head, current| Branch {
            name: name.to_owned(),
            head,
            current,
        };
        let others = thread.branches.iter().map(|(name, head)| branch(name, *head, false));
        let mut all: Vec<_> = others.chain([branch(thread.branch(), head, true)]).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        let threads = self.lock();
        let own = threads
            .keys()
            .filter(|stored| stored.tenant == key.tenant && stored.thread == key.thread);
        let mut found: Vec<_> = own
            .map(|stored| stored.namespace.clone())
            .filter(|namespace| namespace > after)
            .collect();
        found.sort();
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        self.lock()
            .retain(|stored, _| stored.tenant != key.tenant || stored.thread != key.thread);
        Ok(())
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        let threads = self.lock();
        let roots = threads.iter().filter(|(key, _)| key.namespace.is_root());
        let mut found: Vec<_> = roots
            .filter_map(|(key, thread)| thread.running(graph).map(|run| (run, key.clone())))
            .collect();
        found.sort();
        found.truncate(limit as usize);
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        let threads = self.lock();
        let all = threads
            .iter()
            .flat_map(|(key, thread)| thread.outbox.iter().map(move |message| (key, message)));
        let mut found: Vec<_> = all
            .filter(|(_, m)| m.topic == topic)
            .map(|(key, message)| (key.clone(), message.clone()))
            .collect();
        found.sort_by_key(|(_, message)| message.id);
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        if let Some(thread) = self.lock().get_mut(key) {
            thread.outbox.retain(|waiting| waiting.id != message);
        }
        Ok(())
    }

    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        let mut threads = self.lock();
        let thread = threads.get_mut(key);
        let Some(seq) = at else {
            if let Some(thread) = thread {
                thread.tags.remove(name);
            }
            return Ok(());
        };
        match thread.filter(|thread| thread.row(seq).is_some()) {
            Some(thread) => {
                thread.tags.insert(name.to_owned(), seq);
                Ok(())
            }
            None => Err(CheckpointError::NoCheckpoint { key: key.clone(), seq }),
        }
    }

    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        let threads = self.lock();
        let tags = threads.get(key).map(|thread| &thread.tags).into_iter().flatten();
        Ok(tags
            .map(|(name, seq)| Tag {
                name: name.clone(),
                seq: *seq,
            })
            .collect())
    }

    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        let threads = self.lock();
        let own = threads.keys().filter(|key| key.tenant == *tenant);
        let names = own.map(|key| &key.thread);
        let found: BTreeSet<_> = names.filter(|name| after.is_none_or(|after| *name > after)).collect();
        Ok(found.into_iter().take(limit as usize).cloned().collect())
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        match self.lock().get_mut(key) {
            Some(thread) => thread.thin(key, thinning),
            None => Ok(()),
        }
    }
}
