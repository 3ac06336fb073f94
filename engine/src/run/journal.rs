//! What the tasks of the current step have left behind: answers, effects, outputs; and the questions they ask now.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    ask::Question,
    checkpoint::{RecordKind, TaskRecord},
    node::Failure,
    state::StateError,
};

/// The records of the step under way, as loaded from the store and as added since.
#[derive(Default)]
pub(crate) struct Journal {
    /// Whether anything was written since it was last cleared: most steps leave nothing behind, and take no lock.
    used: AtomicBool,
    /// In a box, made when somebody writes: most runs leave nothing behind.
    inner: Mutex<Option<Box<Inner>>>,
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<(String, RecordKind, String), Arc<[u8]>>,
    asked: Vec<(String, Question)>,
    /// An answer that no question was named for, and that whoever asks first may take: of recorded profiles only.
    unnamed: Option<Value>,
    /// The answers that were made of it, to be written down.
    taken: Vec<TaskRecord>,
}

/// What was left behind, locked.
struct Opened<'a>(MutexGuard<'a, Option<Box<Inner>>>);

impl Deref for Opened<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        static NOTHING: Inner = Inner::NOTHING;
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Opened<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.0.get_or_insert_default()
    }
}

impl Inner {
    const NOTHING: Self = Self {
        records: BTreeMap::new(),
        asked: Vec::new(),
        unnamed: None,
        taken: Vec::new(),
    };
}

impl Journal {
    #[inline]
    fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Acquire)
    }

    /// To be written to.
    fn open(&self) -> Opened<'_> {
        self.used.store(true, Ordering::Release);
        self.lock()
    }

    fn lock(&self) -> Opened<'_> {
        Opened(self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds records; a later one of the same task, kind and key replaces the earlier.
    pub(crate) fn keep(&self, records: Vec<TaskRecord>) {
        let mut inner = self.open();
        for record in records {
            inner
                .records
                .insert((record.task, record.kind, record.key), record.body);
        }
    }

    /// A record's body as it was written.
    pub(crate) fn body(&self, task: &str, kind: RecordKind, key: &str) -> Option<Arc<[u8]>> {
        if self.is_unused() {
            return None;
        }
        self.lock()
            .records
            .get(&(task.to_owned(), kind, key.to_owned()))
            .cloned()
    }

    pub(crate) fn decode<T: DeserializeOwned>(
        &self,
        task: &str,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<T>, StateError> {
        self.body(task, kind, key).map(|body| decode_record(&body)).transpose()
    }

    /// Whether nothing was left behind.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().records.is_empty()
    }

    /// How a task has failed.
    pub(crate) fn failure(&self, task: &str) -> Result<Option<Failure>, StateError> {
        let body = self.body(task, RecordKind::Failure, "");
        body.map(|body| Failure::decode(&body)).transpose()
    }

    /// The answer to a question, as JSON.
    pub(crate) fn answer(&self, task: &str, name: &str) -> Option<Value> {
        self.body(task, RecordKind::Answer, name)
            .and_then(|body| serde_json::from_slice(&body).ok())
    }

    /// The questions of one task that have no answer yet.
    pub(crate) fn open_questions(&self, task: &str) -> Vec<Question> {
        let inner = self.lock();
        let answered = |name: &str| {
            let key = (task.to_owned(), RecordKind::Answer, name.to_owned());
            inner.records.get(&key).is_some_and(|body| !body.is_empty())
        };
        let own = inner
            .records
            .iter()
            .filter(|((owner, kind, _), _)| owner == task && *kind == RecordKind::Question);
        let mut open: Vec<Question> = own
            .filter(|((_, _, name), _)| !answered(name))
            .filter_map(|(_, body)| serde_json::from_slice(body).ok())
            .collect();
        open.sort_by(|a, b| a.id.cmp(&b.id));
        open
    }

    /// Lays out an answer for whoever asks first.
    pub(super) fn lay_out(&self, answer: Value) {
        self.open().unnamed = Some(answer);
    }

    /// Takes what was laid out.
    pub(super) fn pick_up(&self) -> Option<Value> {
        if self.is_unused() {
            return None;
        }
        self.lock().unnamed.take()
    }

    /// Keeps an answer that a task has picked up, also for the store.
    pub(super) fn picked_up(&self, answer: TaskRecord) {
        self.keep(vec![answer.clone()]);
        self.lock().taken.push(answer);
    }

    /// The answers that were picked up and are not written down yet.
    pub(super) fn unwritten(&self) -> Vec<TaskRecord> {
        if self.is_unused() {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().taken)
    }

    /// The names of the questions that one task has asked in earlier runs of the step.
    pub(super) fn asked_before(&self, task: &str) -> Vec<String> {
        let inner = self.lock();
        let own = inner
            .records
            .iter()
            .filter(|((owner, kind, _), body)| owner == task && *kind == RecordKind::Question && !body.is_empty());
        own.map(|((_, _, name), _)| name.clone()).collect()
    }

    /// The answers of one task, by question name.
    pub(crate) fn answers(&self, task: &str) -> Vec<(String, Value)> {
        let inner = self.lock();
        let own = inner
            .records
            .iter()
            .filter(|((owner, kind, _), _)| owner == task && *kind == RecordKind::Answer);
        own.filter_map(|((_, _, name), body)| Some((name.clone(), serde_json::from_slice(body).ok()?)))
            .collect()
    }

    pub(crate) fn ask(&self, task: &str, question: Question) {
        let mut inner = self.open();
        inner
            .asked
            .retain(|(owner, asked)| owner != task || asked.name != question.name);
        inner.asked.push((task.to_owned(), question));
    }

    /// Takes the questions that one task has asked since it was entered.
    pub(crate) fn take_asked(&self, task: &str) -> Vec<Question> {
        let mut inner = self.lock();
        if inner.asked.is_empty() {
            return Vec::new();
        }
        let asked = std::mem::take(&mut inner.asked);
        let (own, others) = asked.into_iter().partition(|(owner, _)| owner == task);
        inner.asked = others;
        own.into_iter().map(|(_, question)| question).collect()
    }

    /// Whether anything was asked in this step.
    #[inline]
    pub(crate) fn has_asked(&self) -> bool {
        !self.is_unused() && !self.lock().asked.is_empty()
    }

    /// Forgets everything: the step has ended.
    #[inline]
    pub(crate) fn clear(&self) {
        if !self.is_unused() {
            self.wipe();
        }
    }

    fn wipe(&self) {
        self.used.store(false, Ordering::Release);
        let mut inner = self.lock();
        inner.records.clear();
        inner.asked.clear();
        inner.unnamed = None;
        inner.taken.clear();
    }
}

/// Encodes the body of a record: `MessagePack` with field names.
pub(crate) fn encode_record<T: Serialize + ?Sized>(value: &T) -> Result<Arc<[u8]>, StateError> {
    rmp_serde::to_vec_named(value)
        .map(Into::into)
        .map_err(|error| StateError::Encode(error.to_string()))
}

/// Decodes the body of a record.
pub(crate) fn decode_record<T: DeserializeOwned>(body: &[u8]) -> Result<T, StateError> {
    rmp_serde::from_slice(body).map_err(|error| StateError::Decode(error.to_string()))
}
