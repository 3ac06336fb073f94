//! Sealed checkpoints: nobody who reads the store reads what threads hold.
//!
//! [`Sealed`] stands around any store. What users and their graphs have written goes in compressed and sealed: states, what
//! runs next, records of tasks with the keys of questions and effects, messages to others, the texts of errors. It is bound
//! to its tenant, its thread, its namespace, what it is and the checkpoint it belongs to, so that nothing opens in another's
//! place; and parts of a state name the part before them, so that none can be left out or put in.
//!
//! What stays readable, because stores find and order things by it: names of tenants, threads and namespaces, of nodes (with
//! the index of a send) and graphs, of topics, branches and tags; numbers, ids and times; kinds and states of runs; and how
//! long things are, after compression, each [large value](Sealed::values_from) of a state for itself, and which checkpoints of
//! one thread hold the same large value. Who can choose part of a state and see how long the sealed whole grows can guess at
//! the rest of it: do not give strangers sight of the store.
//!
//! With [`TenantKeys`] each tenant has a key of its own, and erasing the tenant destroys it: no copy of the store, of whatever
//! day, can be read any more.
//!
//! What it does not see: a store that is put back, whole threads or the newest of their checkpoints, to how it once was.
//!
//! ```
//! use stepgraph::{Checkpointer, Memory};
//! use stepgraph_checkpoint::seal::{MasterKeys, Sealed};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys: MasterKeys = "1:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=".parse()?;
//! let store = Sealed::new(Memory::new(), keys);
//! # let _: &dyn Checkpointer = &store;
//! # Ok(()) }
//! ```

mod anew;
mod envelope;
mod keys;
mod opened;
mod place;
mod standing;
mod store;
mod tenants;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::SubsecRound as _;
use stepgraph::{
    CheckpointError, Checkpointer, TenantId, ThreadKey,
    checkpoint::{
        AroundStore, At, Checkpoint, CheckpointInfo, Commit, Epoch, NewCheckpoint, OutboxMessage, Page, Payload,
        RunMark, Seq, TaskRecord, Thinning,
    },
};
use uuid::Uuid;

pub use self::anew::SealedAnew;
pub use self::keys::{InvalidKeys, KEY_BYTES, KeyError, KeyId, Keys, MASTER_KEYS_MAX, MasterKeys, TenantKey};
#[cfg(feature = "postgres")]
pub use self::store::PostgresKeys;
#[cfg(feature = "sqlite")]
pub use self::store::SqliteKeys;
use self::{
    envelope::{Cipher, Content},
    opened::Opener,
    place::{Facts, Place},
    standing::{Standing, Standings},
};
pub use self::{
    store::{KeptKey, KeyStore},
    tenants::{OWN_KEYS_FROM, REMEMBERED_FOR, TenantKeys},
};
use crate::value::{self, Keeping, LARGE_VALUE_BYTES, bundle};

/// A store whose bodies are compressed and sealed before they reach the store within. See the [module](self).
pub struct Sealed<S> {
    store: S,
    keys: Arc<dyn Keys>,
    standings: Standings,
    values_from: usize,
}

impl<S: fmt::Debug> fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<S: Checkpointer> Sealed<S> {
    /// Seals whatever goes into `store`, and opens what comes out. What `store` holds unsealed already does not come out:
    /// [`CheckpointError::NotSealed`], until it was [sealed anew](Self::seal_anew).
    pub fn new(store: S, keys: impl Keys) -> Self {
        Self {
            store,
            keys: Arc::new(keys),
            standings: Standings::default(),
            values_from: LARGE_VALUE_BYTES,
        }
    }

    /// From how many bytes on, encoded, a value of a state is sealed apart, so that a store that keeps large values once a
    /// thread can do so. [`LARGE_VALUE_BYTES`] unless told; `usize::MAX` seals all states whole. What is there already opens
    /// as it was sealed, whatever is told here.
    #[must_use]
    pub fn values_from(mut self, bytes: usize) -> Self {
        self.values_from = bytes;
        self
    }

    /// The store within.
    pub const fn get_ref(&self) -> &S {
        &self.store
    }

    fn opener<'a>(&'a self, key: &'a ThreadKey) -> Opener<'a> {
        Opener::new(&*self.keys, key)
    }

    /// The checkpoint of a number, as the writer of an epoch may rely on it.
    async fn standing(&self, key: &ThreadKey, epoch: Epoch, seq: Seq) -> Result<Option<Standing>, CheckpointError> {
        if let Some(known) = self.standings.get(key, epoch, seq) {
            return Ok(Some(known));
        }
        let page = Page {
            before: seq.0.checked_add(1).map(Seq),
            limit: 1,
        };
        let found = self.store.list(key, page).await?;
        let Some(info) = found.first().filter(|info| info.seq == seq) else {
            return Ok(None);
        };
        let key_id = envelope::key_id(&info.frontier).map_err(opened::broken(key, "what runs next in a checkpoint"))?;
        Ok(Some(Standing {
            id: info.id,
            key: key_id,
        }))
    }

    /// The same, where the store within must know it or refuse.
    async fn needed(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        (commit, seq): (&Commit, Option<Seq>),
    ) -> Result<Standing, CheckpointError> {
        if let Some(seq) = seq
            && let Some(standing) = self.standing(key, epoch, seq).await?
        {
            return Ok(standing);
        }
        // Nothing to bind to. What is wrong, the store within knows best.
        let nothing = Commit {
            parent: commit.parent,
            ..Commit::default()
        };
        self.store.commit(key, epoch, expected, nothing).await?;
        Err(CheckpointError::NoCheckpoint {
            key: key.clone(),
            seq: seq.unwrap_or(Seq(0)),
        })
    }
}

/// Seals the parts of a commit with one key.
struct Sealer<'a> {
    key: &'a ThreadKey,
    cipher: &'a Cipher,
    values_from: usize,
}

impl Sealer<'_> {
    fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        self.seal_behind(&[], place, (Content::Whole, plain))
    }

    fn seal_behind(
        &self,
        clear: &[u8],
        place: &Place<'_>,
        plain: (Content, &[u8]),
    ) -> Result<Vec<u8>, CheckpointError> {
        let sealed = self.cipher.seal(self.key, place, clear, plain);
        sealed.map_err(|_| CheckpointError::Unavailable {
            message: "the machine gives no random bytes to seal with".to_owned(),
            source: None,
        })
    }

    /// A part of a state. In the clear before it: the checkpoint that wrote it, and the one it stands upon. Its large values
    /// are sealed apart, each under a name that the thread's key gives, and come behind it in a bundle.
    fn part(&self, of: Uuid, upon: Option<Uuid>, plain: &[u8]) -> Result<Arc<[u8]>, CheckpointError> {
        let place = match upon {
            None => Place::Snapshot { of },
            Some(upon) => Place::Delta { of, upon },
        };
        let clear = [*of.as_bytes(), *upon.unwrap_or_default().as_bytes()].concat();
        let keeping = Keeping {
            from: self.values_from,
            packed_from: usize::MAX,
        };
        let cut = value::pieces(plain, keeping, |value| self.cipher.value_name(value));
        let Some(cut) = cut.filter(|cut| !cut.values.is_empty()) else {
            return self
                .seal_behind(&clear, &place, (Content::Whole, plain))
                .map(Into::into);
        };
        let mut bundle = bundle::Writer::default();
        bundle.head(&self.seal_behind(&clear, &place, (Content::Stub, &cut.stub))?);
        for (name, plain) in &cut.values {
            bundle.piece(name, &self.seal(&Place::Value { name }, plain)?);
        }
        Ok(bundle.done().into())
    }

    fn checkpoint(&self, new: NewCheckpoint, upon: Option<Uuid>) -> Result<NewCheckpoint, CheckpointError> {
        let created_at = new.created_at.trunc_subsecs(6);
        let new = NewCheckpoint { created_at, ..new };
        let payload = match &new.payload {
            Payload::Snapshot(bytes) => Payload::Snapshot(self.part(new.id, None, bytes)?),
            Payload::Delta(bytes) => Payload::Delta(self.part(new.id, Some(upon.unwrap_or_default()), bytes)?),
        };
        let frontier = self.seal(&Place::Frontier(Facts::from(&new)), &new.frontier)?.into();
        Ok(NewCheckpoint {
            payload,
            frontier,
            ..new
        })
    }

    /// The user's key goes in with the body; what stands for it is made with the checkpoint's own key.
    fn record(&self, at: Uuid, names: &Cipher, record: TaskRecord) -> Result<TaskRecord, CheckpointError> {
        let name = names.name(&record.task, record.kind.as_str(), &record.key);
        let place = Place::Record {
            at,
            task: &record.task,
            kind: record.kind,
            name: &name,
        };
        let length = u32::try_from(record.key.len()).unwrap_or(u32::MAX).to_be_bytes();
        let plain = [&length, record.key.as_bytes(), &record.body].concat();
        let body = self.seal(&place, &plain)?.into();
        Ok(TaskRecord {
            key: name,
            body,
            ..record
        })
    }

    fn run(&self, run: RunMark) -> Result<RunMark, CheckpointError> {
        let place = Place::Error {
            run: run.run,
            graph: &run.graph,
        };
        let error = match &run.error {
            None => None,
            Some(error) => Some(URL_SAFE_NO_PAD.encode(self.seal(&place, error.as_bytes())?)),
        };
        Ok(RunMark { error, ..run })
    }

    fn message(&self, message: OutboxMessage) -> Result<OutboxMessage, CheckpointError> {
        let place = Place::Message {
            id: message.id,
            topic: &message.topic,
        };
        let body = self.seal(&place, &message.body)?;
        Ok(OutboxMessage { body, ..message })
    }
}

#[async_trait]
impl<S: Checkpointer> AroundStore for Sealed<S> {
    fn within(&self) -> &dyn Checkpointer {
        &self.store
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let parent = commit.parent.or(expected);
        let delta = |new: &NewCheckpoint| matches!(new.payload, Payload::Delta(_));
        let upon = match parent {
            Some(_) if commit.checkpoint.as_ref().is_some_and(delta) => {
                Some(self.needed(key, epoch, expected, (&commit, parent)).await?.id)
            }
            _ => None,
        };
        let at = match commit.records.as_slice() {
            [] => None,
            _ => Some(self.needed(key, epoch, expected, (&commit, expected)).await?),
        };
        let mut opener = self.opener(key);
        if let Some(at) = at {
            opener.learn(at.key).await?;
        }
        let current = opener.current().await?;
        let hand = Sealer {
            key,
            cipher: opener.cipher(current)?,
            values_from: self.values_from,
        };
        let mut records = Vec::with_capacity(commit.records.len());
        if let Some(at) = at {
            let names = opener.cipher(at.key)?;
            for record in commit.records {
                records.push(hand.record(at.id, names, record)?);
            }
        }
        let made = commit.checkpoint.as_ref().map(|new| new.id);
        let checkpoint = commit.checkpoint.map(|new| hand.checkpoint(new, upon)).transpose()?;
        let run = commit.run.map(|run| hand.run(run)).transpose()?;
        let outbox = commit.outbox.into_iter().map(|message| hand.message(message));
        let sealed = Commit {
            checkpoint,
            parent: commit.parent,
            records,
            run,
            outbox: outbox.collect::<Result<_, _>>()?,
        };
        let head = self.store.commit(key, epoch, expected, sealed).await?;
        if let (Some(head), Some(id)) = (head, made) {
            self.standings.put(key, epoch, head, Standing { id, key: current });
        }
        Ok(head)
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        match self.store.get(key, at).await? {
            None => Ok(None),
            Some(found) => self.opener(key).checkpoint(found).await.map(Some),
        }
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let mut opener = self.opener(key);
        let mut infos = self.store.list(key, page).await?;
        for info in &mut infos {
            opener.info(info).await?;
        }
        Ok(infos)
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        let mut messages = self.store.outbox(topic, limit).await?;
        for (key, message) in &mut messages {
            let place = Place::Message {
                id: message.id,
                topic: &message.topic,
            };
            message.body = Opener::new(&*self.keys, key).open(&place, 0, &message.body).await?;
        }
        Ok(messages)
    }

    /// The keys go first: what an interruption leaves of the rows is unreadable already, and is erased by the next try.
    async fn erase(&self, tenant: &TenantId) -> Result<(), CheckpointError> {
        let destroyed = self.keys.erase(tenant).await;
        destroyed.map_err(|error| CheckpointError::Unavailable {
            message: error.to_string(),
            source: None,
        })?;
        self.store.erase(tenant).await
    }

    /// A part keeps its seal in the row it moves to: it is bound to the checkpoint that wrote it. Parts that are not the
    /// stored ones are sealed anew.
    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let mut rebased = Vec::with_capacity(thinning.rebased.len());
        for (seq, parts) in thinning.rebased {
            let Some(stored) = self.store.get(key, At::Seq(seq)).await? else {
                continue;
            };
            let (id, sealed) = (stored.info.id, stored.parts.clone());
            let mut opener = self.opener(key);
            if opener.parts(id, &stored.parts).await? == parts {
                rebased.push((seq, sealed));
                continue;
            }
            let current = opener.current().await?;
            let hand = Sealer {
                key,
                cipher: opener.cipher(current)?,
                values_from: self.values_from,
            };
            rebased.push((seq, anew(&hand, id, &parts)?));
        }
        let removed = thinning.removed;
        self.store.thin(key, Thinning { rebased, removed }).await
    }
}

/// Parts that no checkpoint wrote as they are, in a line that ends at `id`.
fn anew(hand: &Sealer<'_>, id: Uuid, parts: &[Arc<[u8]>]) -> Result<Vec<Arc<[u8]>>, CheckpointError> {
    let mut upon = None;
    let last = parts.len().saturating_sub(1);
    let each = parts.iter().enumerate().map(|(index, part)| {
        let of = if index == last {
            id
        } else {
            Uuid::new_v5(&id, &index.to_be_bytes())
        };
        let sealed = hand.part(of, upon, part);
        upon = Some(of);
        sealed
    });
    each.collect()
}
