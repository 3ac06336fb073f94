//! Opening what a store gives back.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Checkpoint, CheckpointInfo, RunMark, TaskRecord},
};
use uuid::Uuid;

use super::{
    envelope::{self, Broken, Cipher, Content},
    keys::{KeyError, KeyId, Keys},
    place::{Facts, Place},
};
use crate::value::{self, Name, bundle::Bundle};

/// Length of what stands in the clear before a part of a state: two ids.
const LINK_LEN: usize = 32;
/// Where it begins.
const LINK_START: usize = envelope::HEAD_LEN;

/// Opens what one thread holds, with each key that it needs looked up once.
pub(super) struct Opener<'a> {
    keys: &'a dyn Keys,
    thread: &'a ThreadKey,
    ciphers: Vec<Cipher>,
}

/// What is told of something that does not open.
pub(super) fn broken(thread: &ThreadKey, what: &'static str) -> impl Fn(Broken) -> CheckpointError {
    move |broken| {
        let key = thread.clone();
        match broken {
            Broken::Plain => CheckpointError::NotSealed { key, what },
            Broken::Forged => CheckpointError::Forged { key, what },
            Broken::Cut => CheckpointError::Corrupt {
                key,
                message: format!("{what} is cut, or sealed by a version of this program that is newer"),
            },
        }
    }
}

impl<'a> Opener<'a> {
    pub(super) fn new(keys: &'a dyn Keys, thread: &'a ThreadKey) -> Self {
        Self {
            keys,
            thread,
            ciphers: Vec::new(),
        }
    }

    fn failed(&self, id: KeyId, error: KeyError) -> CheckpointError {
        match error {
            KeyError::Unknown => self.no_key(id),
            KeyError::Unavailable { message } => CheckpointError::Unavailable { message, source: None },
        }
    }

    fn no_key(&self, id: KeyId) -> CheckpointError {
        CheckpointError::NoKey {
            key: self.thread.clone(),
            id: id.0,
        }
    }

    /// Looks a key up, once.
    pub(super) async fn learn(&mut self, id: KeyId) -> Result<(), CheckpointError> {
        if self.ciphers.iter().any(|known| known.id == id) {
            return Ok(());
        }
        let key = self.keys.key(&self.thread.tenant, id).await;
        let key = key.map_err(|error| self.failed(id, error))?;
        let cipher = Cipher::of(self.thread, id, &key).map_err(broken(self.thread, "a key"))?;
        self.ciphers.push(cipher);
        Ok(())
    }

    /// The key to seal with now, looked up.
    pub(super) async fn current(&mut self) -> Result<KeyId, CheckpointError> {
        let id = self.keys.current(&self.thread.tenant).await;
        let id = id.map_err(|error| self.failed(KeyId(0), error))?;
        self.learn(id).await?;
        Ok(id)
    }

    /// A key that was looked up.
    pub(super) fn cipher(&self, id: KeyId) -> Result<&Cipher, CheckpointError> {
        let known = self.ciphers.iter().find(|known| known.id == id);
        known.ok_or_else(|| self.no_key(id))
    }

    pub(super) async fn open(
        &mut self,
        place: &Place<'_>,
        clear: usize,
        sealed: &[u8],
    ) -> Result<Vec<u8>, CheckpointError> {
        let broken = broken(self.thread, place.what());
        let id = envelope::key_id(sealed).map_err(&broken)?;
        self.learn(id).await?;
        let cipher = self.cipher(id)?;
        cipher.open(self.thread, place, clear, sealed).map_err(broken)
    }

    /// Opens the line of parts that ends at a checkpoint: each stands upon the one before it.
    pub(super) async fn parts(&mut self, end: Uuid, parts: &[Arc<[u8]>]) -> Result<Vec<Arc<[u8]>>, CheckpointError> {
        let mut opened = Vec::with_capacity(parts.len());
        let (mut before, mut values) = (None, BTreeMap::new());
        for part in parts {
            let Bundle { head, pieces } = Bundle::read(part).unwrap_or(Bundle {
                head: part,
                pieces: Vec::new(),
            });
            let (of, upon) = link(head).map_err(broken(self.thread, "a state"))?;
            // Opened first: what a link says counts only if the key says so too.
            let snapshot = Place::Snapshot { of };
            let plain = match before {
                None if upon.is_nil() => match self.open(&snapshot, LINK_LEN, head).await {
                    Ok(plain) => plain,
                    // The first of a thread may be a step's effects upon nothing.
                    Err(CheckpointError::Forged { .. }) => {
                        self.open(&Place::Delta { of, upon }, LINK_LEN, head).await?
                    }
                    Err(error) => return Err(error),
                },
                Some(before) if upon == before => self.open(&Place::Delta { of, upon }, LINK_LEN, head).await?,
                _ => return Err(self.forged("a state")),
            };
            opened.push(match envelope::content(head) {
                Content::Whole => plain.into(),
                Content::Stub => {
                    self.values(&pieces, &mut values).await?;
                    self.joined(&plain, &values)?
                }
            });
            before = Some(of);
        }
        if before.is_some_and(|last| last != end) {
            return Err(self.forged("a state"));
        }
        Ok(opened)
    }

    /// Opens the large values that are not known yet.
    async fn values(
        &mut self,
        pieces: &[(Name, &[u8])],
        known: &mut BTreeMap<Name, Vec<u8>>,
    ) -> Result<(), CheckpointError> {
        for (name, sealed) in pieces {
            if !known.contains_key(name) {
                let value = self.open(&Place::Value { name }, 0, sealed).await?;
                known.insert(*name, value);
            }
        }
        Ok(())
    }

    fn joined(&self, stub: &[u8], values: &BTreeMap<Name, Vec<u8>>) -> Result<Arc<[u8]>, CheckpointError> {
        let whole = value::joined(stub, |name| values.get(name).map(Vec::as_slice));
        let what = match whole {
            Ok(whole) => return Ok(whole.into()),
            Err(value::Broken::Cut) => Broken::Cut,
            // Somebody has taken it out.
            Err(value::Broken::Missing) => Broken::Forged,
        };
        Err(broken(self.thread, "a state")(what))
    }

    fn forged(&self, what: &'static str) -> CheckpointError {
        broken(self.thread, what)(Broken::Forged)
    }

    pub(super) async fn info(&mut self, info: &mut CheckpointInfo) -> Result<(), CheckpointError> {
        let place = Place::Frontier(Facts::from(&*info));
        info.frontier = self.open(&place, 0, &info.frontier).await?.into();
        Ok(())
    }

    async fn record(&mut self, at: Uuid, record: TaskRecord) -> Result<TaskRecord, CheckpointError> {
        let place = Place::Record {
            at,
            task: &record.task,
            kind: record.kind,
            name: &record.key,
        };
        let plain = self.open(&place, 0, &record.body).await?;
        let (key, body) = keyed(&plain).ok_or_else(|| broken(self.thread, place.what())(Broken::Cut))?;
        Ok(TaskRecord {
            key: key.to_owned(),
            body: body.into(),
            ..record
        })
    }

    async fn run(&mut self, run: RunMark) -> Result<RunMark, CheckpointError> {
        let Some(error) = &run.error else {
            return Ok(run);
        };
        let place = Place::Error {
            run: run.run,
            graph: &run.graph,
        };
        let sealed = URL_SAFE_NO_PAD.decode(error);
        let sealed = sealed.map_err(|_| broken(self.thread, place.what())(Broken::Plain))?;
        let plain = self.open(&place, 0, &sealed).await?;
        let error = String::from_utf8(plain).map_err(|_| broken(self.thread, place.what())(Broken::Cut))?;
        Ok(RunMark {
            error: Some(error),
            ..run
        })
    }

    pub(super) async fn checkpoint(&mut self, mut found: Checkpoint) -> Result<Checkpoint, CheckpointError> {
        let at = found.info.id;
        self.info(&mut found.info).await?;
        found.parts = self.parts(at, &found.parts).await?;
        let mut records = Vec::with_capacity(found.records.len());
        for record in found.records {
            records.push(self.record(at, record).await?);
        }
        records.sort_by(|a, b| (&a.task, a.kind, &a.key).cmp(&(&b.task, b.kind, &b.key)));
        found.records = records;
        if let Some(run) = found.run.take() {
            found.run = Some(self.run(run).await?);
        }
        Ok(found)
    }
}

/// The checkpoint that wrote a part, and the one that it stands upon: nil for none.
fn link(part: &[u8]) -> Result<(Uuid, Uuid), Broken> {
    envelope::key_id(part)?;
    let link = part.get(LINK_START..LINK_START + LINK_LEN).ok_or(Broken::Cut)?;
    let (of, upon) = link.split_at_checked(LINK_LEN / 2).ok_or(Broken::Cut)?;
    let uuid = |bytes| Uuid::from_slice(bytes).map_err(|_| Broken::Cut);
    Ok((uuid(of)?, uuid(upon)?))
}

/// A record's own key, and its body.
fn keyed(plain: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = plain.split_first_chunk::<4>()?;
    let (key, body) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((std::str::from_utf8(key).ok()?, body))
}
