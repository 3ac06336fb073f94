//! What a node asks of services and draws, recorded while it runs and given back when it is replayed.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Context, NodeError, NodeErrorKind, RunContext};
use crate::{
    run::{Bytes, Difference, Notes, Recording, decode_record, encode_record},
    state::StateError,
};

/// Most bytes that one task records. What goes beyond is not recorded, and the task's body cannot be replayed.
const CALLS_BYTES_MAX: usize = 8 << 20;

/// A longer request is recorded by its hash alone.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// What a call counts for beside its request and reply.
const CALL_BYTES: usize = 128;

/// What one entry of a task has asked and drawn.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) attempt: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    seeds: BTreeMap<String, Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Call>,
    /// The node was not entered: its output came from the node cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cached: bool,
    /// It has outgrown [`CALLS_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
    #[serde(skip)]
    bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Call {
    service: String,
    hash: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Bytes>,
    /// None if the node went on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<Reply>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ok(Bytes),
    Failed { message: String, retryable: bool },
}

/// What the record says to a call.
enum Answer {
    Reply(Reply),
    /// The node went on without the reply.
    GivenUp,
    Unknown,
}

/// The calls of one task.
pub(crate) enum Calls {
    Recording(Mutex<Entry>),
    Replaying {
        task: String,
        entry: Entry,
        used: Mutex<Vec<bool>>,
        notes: Arc<Notes>,
    },
}

impl Calls {
    /// Those of a task about to be entered, if its run records them or replays a record.
    pub(crate) fn of(run: &RunContext, task: impl FnOnce() -> String) -> Option<Arc<Self>> {
        let calls = match &run.replay {
            Some(notes) => {
                let task = task();
                let entry = notes.take(&task)?;
                Self::Replaying {
                    used: Mutex::new(vec![false; entry.calls.len()]),
                    task,
                    entry,
                    notes: Arc::clone(notes),
                }
            }
            None if run.recording == Recording::Calls && run.store.is_some() => {
                Self::Recording(Mutex::new(Entry::default()))
            }
            None => return None,
        };
        Some(Arc::new(calls))
    }

    /// A further attempt begins with nothing.
    pub(crate) fn begin(&self, attempt: u32) {
        if let Self::Recording(entry) = self {
            *locked(entry) = Entry {
                attempt,
                ..Entry::default()
            };
        }
    }

    /// The output has come from the node cache.
    pub(crate) fn not_entered(&self) {
        if let Self::Recording(entry) = self {
            locked(entry).cached = true;
        }
    }

    /// The attempt that was recorded last.
    pub(crate) const fn attempt(&self) -> Option<u32> {
        match self {
            Self::Recording(_) => None,
            Self::Replaying { entry, .. } => Some(entry.attempt),
        }
    }

    /// The body of the task's record.
    pub(crate) fn encode(&self) -> Result<Option<Arc<[u8]>>, StateError> {
        match self {
            Self::Recording(entry) => encode_record(&*locked(entry)).map(Some),
            Self::Replaying { .. } => Ok(None),
        }
    }

    /// What ids and random numbers of one purpose are made of.
    pub(crate) fn seed(&self, purpose: &str, own: impl FnOnce() -> Uuid) -> Uuid {
        match self {
            Self::Recording(entry) => {
                let mut entry = locked(entry);
                if let Some(known) = entry.seeds.get(purpose) {
                    return *known;
                }
                let seed = own();
                if entry.grow(purpose.len()) {
                    entry.seeds.insert(purpose.to_owned(), seed);
                }
                seed
            }
            Self::Replaying { task, entry, notes, .. } => entry.seeds.get(purpose).copied().unwrap_or_else(|| {
                notes.differ(
                    task,
                    Difference::Drawn {
                        task: task.clone(),
                        purpose: purpose.to_owned(),
                    },
                );
                own()
            }),
        }
    }

    /// An effect that the journal does not know is not carried out in a replay.
    pub(crate) fn refuse_effect(&self, key: &str) -> Result<(), NodeError> {
        match self {
            Self::Recording(_) => Ok(()),
            Self::Replaying { task, notes, .. } => Err(notes.diverge(
                task,
                Difference::Effect {
                    task: task.clone(),
                    key: key.to_owned(),
                },
            )),
        }
    }

    /// A recorded call that the body has not made.
    pub(crate) fn unused(&self) -> Option<Difference> {
        let Self::Replaying { task, entry, used, .. } = self else {
            return None;
        };
        let at = locked(used).iter().position(|used| !used)?;
        let call = entry.calls.get(at)?;
        Some(Difference::NotCalled {
            task: task.clone(),
            service: call.service.clone(),
            number: at,
            request: call.request.as_ref().map(|request| crate::tree::shown(&request.0)),
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// Whether there is room for so many bytes more.
    fn grow(&mut self, bytes: usize) -> bool {
        let grown = self.bytes.saturating_add(bytes).saturating_add(CALL_BYTES);
        if self.cut || grown > CALLS_BYTES_MAX {
            self.cut = true;
            return false;
        }
        self.bytes = grown;
        true
    }

    /// Takes a place for a call that begins now.
    fn reserve(&mut self, service: &str, hash: Uuid, request: Arc<[u8]>) -> Option<usize> {
        let request = (request.len() <= REQUEST_BYTES_MAX).then_some(request);
        if !self.grow(service.len() + request.as_ref().map_or(0, |request| request.len())) {
            return None;
        }
        self.calls.push(Call {
            service: service.to_owned(),
            hash,
            request: request.map(Bytes),
            reply: None,
        });
        Some(self.calls.len() - 1)
    }

    fn fill(&mut self, at: usize, reply: Reply) {
        let bytes = match &reply {
            Reply::Ok(bytes) => bytes.0.len(),
            Reply::Failed { message, .. } => message.len(),
        };
        if self.grow(bytes)
            && let Some(call) = self.calls.get_mut(at)
        {
            call.reply = Some(reply);
        }
    }
}

fn hashed(service: &str, request: &[u8]) -> Uuid {
    Uuid::new_v5(&Uuid::new_v5(&Uuid::NAMESPACE_OID, service.as_bytes()), request)
}

impl<E: Send + 'static> Context<E> {
    /// Calls a service so that it can be replayed. Where the graph records calls ([`Recording::Calls`]), request and reply
    /// are written down with the step's checkpoint; when the thread is replayed, the reply is given from the record instead
    /// of calling, found by order and request, and another request than the recorded one is reported. Otherwise it just calls.
    ///
    /// Several calls of one request are told apart by their order. Time limits belong inside `call`, so that their passing is
    /// part of the reply. Unlike [`once`](Self::once) it keeps nothing for a node that is entered again: it is for what may
    /// be asked twice.
    ///
    /// ```no_run
    /// # use stepgraph::{Context, NodeError};
    /// # async fn search(_: &str) -> Result<Vec<String>, std::io::Error> { Ok(Vec::new()) }
    /// # async fn node(question: String, ctx: Context<()>) -> Result<(), NodeError> {
    /// let found = ctx.recorded("search", &question, || async { Ok(search(&question).await?) }).await?;
    /// # let _: Vec<String> = found;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What `call` gives; in a replay the recorded error, or that the replay has diverged: return it by `?`.
    pub async fn recorded<Q, T, F, Fut>(&self, service: &str, request: &Q, call: F) -> Result<T, NodeError>
    where
        Q: Serialize + ?Sized + Sync,
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, NodeError>> + Send,
    {
        let Some(calls) = &self.task.calls else {
            return call().await;
        };
        let request = encode_record(request).map_err(NodeError::terminal)?;
        let hash = hashed(service, &request);
        match &**calls {
            Calls::Recording(entry) => {
                let at = locked(entry).reserve(service, hash, request);
                let result = call().await;
                if let Some(at) = at
                    && let Some(reply) = Reply::of(&result)?
                {
                    locked(entry).fill(at, reply);
                }
                result
            }
            Calls::Replaying {
                task,
                entry,
                used,
                notes,
            } => match entry.answer(used, service, hash) {
                Answer::Reply(Reply::Ok(bytes)) => decode_record(&bytes.0).map_err(|error| {
                    notes.diverge(
                        task,
                        Difference::Failed {
                            task: Some(task.clone()),
                            error: error.to_string(),
                        },
                    )
                }),
                Answer::Reply(Reply::Failed { message, retryable }) if retryable => Err(NodeError::retryable(message)),
                Answer::Reply(Reply::Failed { message, .. }) => Err(NodeError::terminal(message)),
                // The node went on without this reply, and so it does here.
                Answer::GivenUp => std::future::pending().await,
                Answer::Unknown => Err(notes.diverge(task, entry.asked(task, used, service, &request))),
            },
        }
    }
}

impl Reply {
    /// None for an error that is no reply: the run was cancelled, or a question put.
    fn of<T: Serialize>(result: &Result<T, NodeError>) -> Result<Option<Self>, NodeError> {
        Ok(match result {
            Ok(value) => Some(Self::Ok(Bytes(encode_record(value).map_err(NodeError::terminal)?))),
            Err(error) => match error.kind() {
                NodeErrorKind::Retryable | NodeErrorKind::Terminal => Some(Self::Failed {
                    message: error.to_string(),
                    retryable: error.is_retryable(),
                }),
                NodeErrorKind::Asked
                | NodeErrorKind::Paused
                | NodeErrorKind::Left
                | NodeErrorKind::Drained
                | NodeErrorKind::OverBudget
                | NodeErrorKind::Leaves
                | NodeErrorKind::Cancelled
                | NodeErrorKind::TimeLimit => None,
            },
        })
    }
}

impl Entry {
    /// The reply to the first call of this request that was not given yet.
    fn answer(&self, used: &Mutex<Vec<bool>>, service: &str, hash: Uuid) -> Answer {
        let mut used = locked(used);
        let fits = |(call, used): &(&Call, &mut bool)| !**used && call.hash == hash && call.service == service;
        let Some((call, used)) = self.calls.iter().zip(used.iter_mut()).find(fits) else {
            return Answer::Unknown;
        };
        *used = true;
        call.reply.clone().map_or(Answer::GivenUp, Answer::Reply)
    }

    /// What was asked instead of what the record says.
    fn asked(&self, task: &str, used: &Mutex<Vec<bool>>, service: &str, request: &[u8]) -> Difference {
        let next = locked(used).iter().position(|used| !used);
        let recorded = next.and_then(|at| self.calls.get(at));
        Difference::Called {
            task: task.to_owned(),
            service: service.to_owned(),
            number: next.unwrap_or(self.calls.len()),
            recorded: recorded.map(|call| {
                let request = call.request.as_ref().map(|request| crate::tree::shown(&request.0));
                (call.service.clone(), request)
            }),
            replayed: crate::tree::shown(request),
        }
    }
}
