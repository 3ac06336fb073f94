//! Sealing anew what was written before there was a key, or with one that is no longer the current one.
//!
//! A store changes no checkpoint that it holds, so a thread is written again: sealed, under a name of its own, and marked as
//! complete; then the old one goes, and the thread is written once more under its name. Broken off anywhere, one of the two
//! holds everything, and the next call goes on.

use std::{collections::BTreeMap, sync::Arc};

use stepgraph::{
    CheckpointError, Checkpointer, InvalidId, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, Checkpoint, CheckpointInfo, Commit, Epoch, NewCheckpoint, Page, Payload, RunMark, RunStatus, Seq, Thinning,
    },
};
use uuid::Uuid;

use super::{Sealed, envelope, envelope::Broken, opened, opened::Opener};

/// How many checkpoints, or graphs inside a thread, are listed at a time.
const LISTED_AT_ONCE: u32 = 256;

/// What the names begin with of threads that are on their way, of the tags that say whose they are, and of the graphs of their
/// runs, so that nobody resumes them.
const ON_ITS_WAY: &str = "sealing~";

/// What was done with the threads that were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedAnew {
    /// Threads that are sealed with the current key now.
    pub sealed: u64,
    /// Those that were already.
    pub already: u64,
    /// Those whose name was taken by another thread after this was broken off: the old one is kept, sealed, as `sealing~..`.
    pub taken: u64,
}

impl std::ops::AddAssign for SealedAnew {
    fn add_assign(&mut self, other: Self) {
        self.sealed += other.sealed;
        self.already += other.already;
        self.taken += other.taken;
    }
}

/// Whether a thread is written on its way, or where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Towards {
    TheWay,
    ItsName,
}

impl<S: Checkpointer> Sealed<S> {
    /// Seals with the current key whatever is not of so many threads of a tenant, by name from the one behind `after`; also
    /// the name to go on after, or `None` when the last has been reached. What was never sealed is taken as it is: who could
    /// write to the store before could have written anything.
    ///
    /// Nothing may run on the tenant's threads meanwhile. Checkpoints and runs keep their ids, records, names and order; their
    /// numbers close up where some were taken out. Messages that were not delivered yet do not come along: deliver them
    /// before.
    ///
    /// # Errors
    /// What the store says. Called again after that, or after a crash, it goes on.
    pub async fn seal_anew(
        &self,
        tenant: &TenantId,
        (after, threads_max): (Option<&ThreadId>, u32),
    ) -> Result<(SealedAnew, Option<ThreadId>), CheckpointError> {
        let threads = self.store.threads(tenant, after, threads_max).await?;
        let last = threads.last().cloned();
        let mut done = SealedAnew::default();
        for thread in threads {
            let key = ThreadKey::new(tenant.clone(), thread);
            if key.thread.as_str().starts_with(ON_ITS_WAY) {
                done += self.go_on(&key).await?;
            } else if self.is_to_be_sealed(&key).await? {
                self.seal_thread(&key).await?;
                done.sealed += 1;
            } else {
                done.already += 1;
            }
        }
        Ok((done, last))
    }

    async fn seal_thread(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.thread.as_str().as_bytes());
        let way = ThreadKey::new(key.tenant.clone(), named(&format!("{ON_ITS_WAY}{name}"))?);
        // What an earlier call has left is not known to be whole, and the thread itself is still there.
        self.store.delete(&way).await?;
        let head = self.write_again(key, &way, Towards::TheWay).await?;
        let mark = format!("{ON_ITS_WAY}{}", key.thread);
        self.store.tag(&way, &mark, head).await?;
        self.bring_home(&way, key).await
    }

    /// Ends what was broken off.
    async fn go_on(&self, way: &ThreadKey) -> Result<SealedAnew, CheckpointError> {
        let mut done = SealedAnew::default();
        let tags = self.store.tags(way).await?;
        let Some(home) = tags.iter().find_map(|tag| tag.name.strip_prefix(ON_ITS_WAY)) else {
            // It was not whole yet, and the thread itself is still there.
            self.store.delete(way).await?;
            return Ok(done);
        };
        let home = ThreadKey::new(way.tenant.clone(), named(home)?);
        let first = async |key| Ok(self.store.get(key, At::Seq(Seq(1))).await?.map(|found| found.info.id));
        let (wanted, found): (_, Option<Uuid>) = (first(way).await?, first(&home).await?);
        if found.is_some() && found != wanted {
            tracing::warn!(thread = %home, kept = %way, "a thread was begun anew while its old one was sealed: that is kept apart");
            done.taken += 1;
            return Ok(done);
        }
        self.bring_home(way, &home).await?;
        done.sealed += 1;
        Ok(done)
    }

    async fn bring_home(&self, way: &ThreadKey, home: &ThreadKey) -> Result<(), CheckpointError> {
        self.store.delete(home).await?;
        self.write_again(way, home, Towards::ItsName).await?;
        self.store.delete(way).await
    }

    /// Whether anything of a thread, or of the graphs inside it, is not sealed with the current key.
    async fn is_to_be_sealed(&self, root: &ThreadKey) -> Result<bool, CheckpointError> {
        let current = self.opener(root).current().await?;
        for key in self.nest(root).await? {
            for info in self.infos(&key).await? {
                match envelope::key_id(&info.frontier) {
                    Ok(id) if id == current => {}
                    Ok(_) | Err(Broken::Plain) => return Ok(true),
                    Err(broken) => return Err(opened::broken(&key, "what runs next in a checkpoint")(broken)),
                }
            }
        }
        Ok(false)
    }

    /// The thread with the graphs inside it.
    async fn nest(&self, root: &ThreadKey) -> Result<Vec<ThreadKey>, CheckpointError> {
        let (mut nest, mut after) = (vec![root.clone()], Namespace::ROOT);
        loop {
            let inner = self.store.inner(root, &after, LISTED_AT_ONCE).await?;
            let Some(last) = inner.last().cloned() else {
                return Ok(nest);
            };
            nest.extend(inner.into_iter().map(|namespace| ThreadKey {
                namespace,
                ..root.clone()
            }));
            after = last;
        }
    }

    /// All checkpoints of one graph of the nest as the store has them, oldest first.
    async fn infos(&self, key: &ThreadKey) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = Page {
                before,
                limit: LISTED_AT_ONCE,
            };
            let some = self.store.list(key, page).await?;
            let Some(last) = some.last() else { break };
            before = Some(last.seq);
            all.extend(some);
        }
        all.reverse();
        Ok(all)
    }

    /// A checkpoint opened, or as it is where it was never sealed.
    async fn opened(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        match self.store.get(key, at).await? {
            Some(found) if envelope::key_id(&found.info.frontier) == Err(Broken::Plain) => Ok(Some(found)),
            Some(found) => Opener::new(&*self.keys, key).checkpoint(found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Writes a thread with the graphs inside it under another name. Gives the number of its head.
    async fn write_again(
        &self,
        from: &ThreadKey,
        to: &ThreadKey,
        towards: Towards,
    ) -> Result<Option<Seq>, CheckpointError> {
        let mut head = None;
        for key in self.nest(from).await? {
            let target = ThreadKey {
                namespace: key.namespace.clone(),
                ..to.clone()
            };
            // Whoever still writes is fenced off.
            self.store.claim(&key).await?;
            let written = self.write_one_again(&key, target, towards).await?;
            if key.namespace.is_root() {
                head = written;
            }
        }
        Ok(head)
    }

    async fn write_one_again(
        &self,
        from: &ThreadKey,
        to: ThreadKey,
        towards: Towards,
    ) -> Result<Option<Seq>, CheckpointError> {
        let newest = self.opened(from, At::Head).await?.and_then(|head| head.run);
        let run = newest.map(|run| renamed(run, towards));
        let mut copy = Copy {
            epoch: self.claim(&to).await?,
            key: to,
            head: None,
            numbers: BTreeMap::new(),
        };
        for info in self.infos(from).await? {
            if let Some(found) = self.opened(from, At::Seq(info.seq)).await? {
                copy.write(self, found, run.as_ref()).await?;
            }
        }
        let mut branches = self.store.branches(from).await?;
        // The one that the thread is on comes last, and stays.
        branches.sort_by_key(|branch| branch.current);
        for branch in branches {
            let at = copy.number(from, branch.head)?;
            self.store.branch(&copy.key, copy.epoch, at, &branch.name).await?;
            copy.head = Some(at);
        }
        for tag in self.store.tags(from).await? {
            let at = copy.number(from, tag.seq)?;
            if !tag.name.starts_with(ON_ITS_WAY) {
                self.store.tag(&copy.key, &tag.name, Some(at)).await?;
            }
        }
        if run.is_some() {
            let ends = Commit {
                run,
                ..Commit::default()
            };
            self.commit(&copy.key, copy.epoch, copy.head, ends).await?;
        }
        Ok(copy.head)
    }
}

fn named(name: &str) -> Result<ThreadId, CheckpointError> {
    ThreadId::new(name).map_err(|error: InvalidId| CheckpointError::Unavailable {
        message: error.to_string(),
        source: Some(Box::new(error)),
    })
}

fn renamed(run: RunMark, towards: Towards) -> RunMark {
    let graph = match towards {
        Towards::TheWay => format!("{ON_ITS_WAY}{}", run.graph),
        Towards::ItsName => run.graph.trim_start_matches(ON_ITS_WAY).to_owned(),
    };
    RunMark {
        graph: graph.into(),
        ..run
    }
}

/// The thread that is being written.
struct Copy {
    key: ThreadKey,
    epoch: Epoch,
    head: Option<Seq>,
    /// The numbers that its checkpoints had, with those that they have now.
    numbers: BTreeMap<Seq, Seq>,
}

impl Copy {
    fn number(&self, from: &ThreadKey, seq: Seq) -> Result<Seq, CheckpointError> {
        let number = self.numbers.get(&seq).copied();
        number.ok_or_else(|| CheckpointError::NoCheckpoint { key: from.clone(), seq })
    }

    async fn write<S: Checkpointer>(
        &mut self,
        store: &Sealed<S>,
        found: Checkpoint,
        newest: Option<&RunMark>,
    ) -> Result<(), CheckpointError> {
        let Checkpoint {
            info, parts, records, ..
        } = found;
        let parent = info.parent.map(|parent| self.number(&self.key, parent)).transpose()?;
        // One that stands on its own says its whole state, in as many parts as it has; the others their own, the last.
        let own = match (parent, parts.len()) {
            (None, _) | (_, 1) => parts.first().cloned().map(Payload::Snapshot),
            _ => parts.last().cloned().map(Payload::Delta),
        };
        let own = own.ok_or_else(|| CheckpointError::Corrupt {
            key: self.key.clone(),
            message: format!("checkpoint {} has no state", info.seq.0),
        })?;
        let run = info.run.zip(newest).map(|(run, newest)| RunMark {
            run,
            graph: newest.graph.clone(),
            status: RunStatus::Stopped,
            error: None,
        });
        // A store takes every checkpoint but the first for the child of another, and its state for one part.
        let alone = parent.is_none() && (self.head.is_some() || parts.len() > 1);
        let new = Commit {
            checkpoint: Some(again(&info, own)),
            parent: parent.filter(|parent| Some(*parent) != self.head),
            run,
            ..Commit::default()
        };
        self.head = store.commit(&self.key, self.epoch, self.head, new).await?;
        if let Some(head) = self.head {
            self.numbers.insert(info.seq, head);
            if alone {
                let (rebased, removed) = (vec![(head, parts)], Vec::new());
                store.thin(&self.key, Thinning { rebased, removed }).await?;
            }
        }
        if !records.is_empty() {
            let records = Commit {
                records,
                ..Commit::default()
            };
            store.commit(&self.key, self.epoch, self.head, records).await?;
        }
        Ok(())
    }
}

fn again(info: &CheckpointInfo, payload: Payload) -> NewCheckpoint {
    NewCheckpoint {
        id: info.id,
        step: info.step,
        source: info.source,
        payload,
        frontier: Arc::clone(&info.frontier),
        fingerprint: info.fingerprint,
        state_version: info.state_version,
        created_at: info.created_at,
    }
}
