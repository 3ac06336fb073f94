//! The reference store: everything in memory, gone with the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    At, AtOnce, Branch, Checkpoint, CheckpointError, CheckpointInfo, Checkpointer, Claim, Commit, Epoch, Line, MAIN,
    NewCheckpoint, OutboxMessage, Page, Payload, RecordKind, RunMark, RunStatus, Seq, StoreDurability, Tag, TaskRecord,
    Thinning,
};
use crate::{
    id::{Namespace, RunId, TenantId, ThreadId, ThreadKey},
    table::{Keyed, Table},
};

/// Keeps checkpoints in memory. For tests, and for runs that need not survive the process.
#[derive(Debug, Default)]
pub struct Memory {
    /// Epochs are numbers drawn where a thread lies in the table, so that they outlive a deleted thread.
    threads: Table<Arc<Own>>,
}

/// A thread, locked alone.
#[derive(Debug)]
struct Own {
    key: ThreadKey,
    thread: Mutex<Thread>,
}

impl Keyed for Arc<Own> {
    fn key(&self) -> &ThreadKey {
        &self.key
    }
}

#[derive(Debug, Default)]
struct Thread {
    /// 0 before it is claimed, and once it is deleted: whoever still holds it writes nothing more.
    epoch: u64,
    deleted: bool,
    head: Option<Seq>,
    run: Option<RunMark>,
    /// In order; numbers are missing where checkpoints were taken out.
    rows: Vec<Row>,
    /// Number of the newest checkpoint that there ever was.
    last: u64,
    /// What few threads have.
    rare: Option<Box<Rare>>,
}

/// What few threads have, apart, so that most are small.
#[derive(Debug, Default)]
struct Rare {
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
    state: Stored,
    records: Option<Box<Records>>,
}

type Records = BTreeMap<(String, RecordKind, String), TaskRecord>;

/// What a row itself says of the state.
#[derive(Debug)]
enum Stored {
    Payload(Payload),
    /// A snapshot, and the deltas upon it where there was a line once.
    Whole(Vec<Arc<[u8]>>),
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
                Stored::Whole(own) => {
                    parts.extend(own.iter().rev().cloned());
                    None
                }
                Stored::Payload(Payload::Snapshot(snapshot)) => {
                    parts.push(Arc::clone(snapshot));
                    None
                }
                Stored::Payload(Payload::Delta(delta)) => {
                    parts.push(Arc::clone(delta));
                    row.info.parent.and_then(|parent| self.row(parent))
                }
            };
        }
        parts.reverse();
        parts
    }

    /// Whether a claim may write upon this head.
    fn allow(&self, key: &ThreadKey, epoch: Epoch, expected: Option<Seq>) -> Result<(), CheckpointError> {
        if self.deleted || self.epoch != epoch.0 {
            return Err(CheckpointError::Fenced { key: key.clone() });
        }
        if self.head != expected {
            return Err(CheckpointError::Conflict {
                key: key.clone(),
                expected,
                found: self.head,
            });
        }
        Ok(())
    }

    /// Puts a checkpoint behind the others, as the head.
    #[inline]
    fn push(&mut self, parent: Option<Seq>, new: NewCheckpoint) {
        self.last += 1;
        let seq = Seq(self.last);
        self.rows.push(Row {
            info: CheckpointInfo {
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
            },
            state: Stored::Payload(new.payload),
            records: None,
        });
        self.head = Some(seq);
    }

    fn write(
        &mut self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        self.allow(key, epoch, expected)?;
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
            let records = row.records.get_or_insert_default();
            for record in commit.records {
                records.insert((record.task.clone(), record.kind, record.key.clone()), record);
            }
        }
        if let Some(run) = commit.run {
            self.run = Some(run);
        }
        if let Some(new) = commit.checkpoint {
            self.push(commit.parent.or(expected), new);
        }
        if !commit.outbox.is_empty() {
            let outbox = &mut self.rare.get_or_insert_default().outbox;
            for message in commit.outbox {
                if outbox.iter().all(|waiting| waiting.id != message.id) {
                    outbox.push(message);
                }
            }
        }
        Ok(self.head)
    }

    fn thin(&mut self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let Thinning { rebased, removed } = thinning;
        let removed: BTreeSet<Seq> = removed.into_iter().collect();
        let goes = |seq: &Seq| removed.contains(seq);
        let rare = self.rare.as_deref();
        let named = rare
            .into_iter()
            .flat_map(|rare| rare.branches.values().chain(rare.tags.values()))
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
                row.state = Stored::Whole(parts);
                row.info.parent = None;
            }
        }
        self.rows.retain(|row| !removed.contains(&row.info.seq));
        Ok(())
    }

    fn branch(&self) -> &str {
        let rare = self.rare.as_deref();
        rare.and_then(|rare| rare.branch.as_deref()).unwrap_or(MAIN)
    }

    fn running(&self, graph: &str) -> Option<RunId> {
        self.run
            .as_ref()
            .filter(|run| run.graph == graph && run.status == RunStatus::Running)
            .map(|run| run.run)
    }
}

impl Own {
    /// A thread under its first claim.
    fn new(key: &ThreadKey, epoch: u64) -> Arc<Self> {
        let thread = Mutex::new(Thread {
            epoch,
            ..Thread::default()
        });
        Arc::new(Self {
            key: key.clone(),
            thread,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn thread(&self, key: &ThreadKey) -> Option<Arc<Own>> {
        let place = self.threads.place(key);
        self.threads.lock(place).get(place, key).cloned()
    }
}

impl AtOnce for Memory {
    fn claim(&self, key: &ThreadKey) -> Result<Claim, CheckpointError> {
        let place = self.threads.place(key);
        let mut part = self.threads.lock(place);
        let new = Own::new(key, 0);
        let known = part
            .insert_new(place, key, |_| Arc::clone(&new))
            .map(|known| Arc::clone(known));
        let own = known.unwrap_or(new);
        // Under the part's lock, so that the later claim gets the higher number.
        let epoch = part.draw();
        own.lock().epoch = epoch;
        Ok((Epoch(epoch), own))
    }

    fn claim_new(&self, key: &ThreadKey) -> Result<Option<Claim>, CheckpointError> {
        let place = self.threads.place(key);
        let mut made = None;
        self.threads.lock(place).insert_new(place, key, |epoch| {
            let own = Own::new(key, epoch);
            made = Some((Epoch(epoch), Arc::clone(&own) as Arc<dyn Line>));
            own
        });
        Ok(made)
    }
}

impl Line for Own {
    fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        self.lock().write(key, epoch, expected, commit)
    }

    fn extend(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        checkpoint: NewCheckpoint,
        run: Option<RunMark>,
    ) -> Result<Option<Seq>, CheckpointError> {
        let mut thread = self.lock();
        thread.allow(key, epoch, expected)?;
        if run.is_some() {
            thread.run = run;
        }
        thread.push(expected, checkpoint);
        Ok(thread.head)
    }
}

#[async_trait]
impl Checkpointer for Memory {
    fn durability(&self) -> StoreDurability {
        StoreDurability::Memory
    }

    fn at_once(&self) -> Option<&dyn AtOnce> {
        Some(self)
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        AtOnce::claim(self, key).map(|(epoch, _)| epoch)
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        match self.thread(key) {
            Some(thread) => thread.lock().write(key, epoch, expected, commit),
            None => Err(CheckpointError::Fenced { key: key.clone() }),
        }
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        let Some(thread) = self.thread(key) else {
            return Ok(None);
        };
        let thread = thread.lock();
        Ok(thread.find(at).map(|row| Checkpoint {
            info: row.info.clone(),
            parts: thread.parts(row),
            records: row
                .records
                .iter()
                .flat_map(|records| records.values())
                .cloned()
                .collect(),
            run: thread.run.clone(),
        }))
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let Some(thread) = self.thread(key) else {
            return Ok(Vec::new());
        };
        let thread = thread.lock();
        let older = thread
            .rows
            .iter()
            .rev()
            .filter(|row| page.before.is_none_or(|before| row.info.seq < before));
        Ok(older.take(page.limit as usize).map(|row| row.info.clone()).collect())
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        let fenced = || CheckpointError::Fenced { key: key.clone() };
        let own = self.thread(key).ok_or_else(fenced)?;
        let mut thread = own.lock();
        if thread.deleted || thread.epoch != epoch.0 {
            return Err(fenced());
        }
        if thread.row(from).is_none() {
            return Err(CheckpointError::NoCheckpoint {
                key: key.clone(),
                seq: from,
            });
        }
        let (left, head) = (thread.branch().to_owned(), thread.head.replace(from));
        let rare = thread.rare.get_or_insert_default();
        if let Some(head) = head {
            rare.branches.insert(left, head);
        }
        rare.branches.remove(name);
        rare.branch = Some(name.to_owned());
        Ok(())
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        let Some(thread) = self.thread(key) else {
            return Ok(Vec::new());
        };
        let thread = thread.lock();
        let Some(head) = thread.head else {
            return Ok(Vec::new());
        };
        let branch = |name: &str, head, current| Branch {
            name: name.to_owned(),
            head,
            current,
        };
        let others = thread.rare.iter().flat_map(|rare| &rare.branches);
        let others = others.map(|(name, head)| branch(name, *head, false));
        let mut all: Vec<_> = others.chain([branch(thread.branch(), head, true)]).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        let part = self.threads.lock(self.threads.place(key));
        let own = part
            .iter()
            .map(|(stored, _)| stored)
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
        let gone = self
            .threads
            .lock(self.threads.place(key))
            .take(|stored| stored.tenant == key.tenant && stored.thread == key.thread);
        for thread in gone {
            *thread.lock() = Thread {
                deleted: true,
                ..Thread::default()
            };
        }
        Ok(())
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        let mut found = Vec::new();
        for part in self.threads.all() {
            let roots = part.iter().filter(|(key, _)| key.namespace.is_root());
            found.extend(roots.filter_map(|(key, thread)| thread.lock().running(graph).map(|run| (run, key.clone()))));
        }
        found.sort();
        found.truncate(limit as usize);
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        let mut found = Vec::new();
        for part in self.threads.all() {
            for (key, thread) in part.iter() {
                let thread = thread.lock();
                let all = thread.rare.iter().flat_map(|rare| &rare.outbox);
                let of_topic = all.filter(|message| message.topic == topic);
                found.extend(of_topic.map(|message| (key.clone(), message.clone())));
            }
        }
        found.sort_by_key(|(_, message)| message.id);
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        if let Some(thread) = self.thread(key)
            && let Some(rare) = &mut thread.lock().rare
        {
            rare.outbox.retain(|waiting| waiting.id != message);
        }
        Ok(())
    }

    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        let thread = self.thread(key);
        let mut thread = thread.as_ref().map(|thread| thread.lock());
        let Some(seq) = at else {
            if let Some(rare) = thread.as_mut().and_then(|thread| thread.rare.as_mut()) {
                rare.tags.remove(name);
            }
            return Ok(());
        };
        match thread.filter(|thread| thread.row(seq).is_some()) {
            Some(mut thread) => {
                thread.rare.get_or_insert_default().tags.insert(name.to_owned(), seq);
                Ok(())
            }
            None => Err(CheckpointError::NoCheckpoint { key: key.clone(), seq }),
        }
    }

    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        let Some(thread) = self.thread(key) else {
            return Ok(Vec::new());
        };
        let thread = thread.lock();
        let tags = thread.rare.iter().flat_map(|rare| &rare.tags);
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
        let mut found = BTreeSet::new();
        for part in self.threads.all() {
            let own = part.iter().map(|(key, _)| key).filter(|key| key.tenant == *tenant);
            let names = own.map(|key| &key.thread);
            found.extend(names.filter(|name| after.is_none_or(|after| *name > after)).cloned());
        }
        Ok(found.into_iter().take(limit as usize).collect())
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        match self.thread(key) {
            Some(thread) => thread.lock().thin(key, thinning),
            None => Ok(()),
        }
    }
}
