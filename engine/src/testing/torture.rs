//! A graph of one's own under every kind of accident.

use std::{
    collections::BTreeMap,
    fmt,
    future::{IntoFuture, poll_fn},
    ops::Range,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::{FaultyStore, ManualClock};
use crate::{
    ask::{Answers, Question},
    checkpoint::Memory,
    graph::Graph,
    id::{TenantId, ThreadId, ThreadKey},
    layer::{Layer, Next, Ran, TaskInfo},
    node::NodeError,
    run::{Outcome, Run, RunError},
    state::State,
};

/// How often a thread is gone on with before it counts as one that never ends.
const RESUMES_MAX: u32 = 100;

/// Prepares to run a graph with accidents: `graph` makes it afresh for each seed, so that what it holds begins anew.
///
/// Each seed is the same whenever it is run on a runtime of one thread: accidents are placed by counting calls of the store,
/// polls of the run and entries of nodes. See the [module](super) for an example.
pub fn torture<S: State, F: Fn() -> Graph<S>>(graph: F, input: S::Input) -> Torture<S, F> {
    Torture {
        graph,
        input,
        seeds: 0..100,
        answer: Box::new(|question| {
            let _ = question;
            Value::Bool(true)
        }),
    }
}

/// A graph about to be run with accidents, made by [`torture`].
#[must_use = "it is run by `run`"]
pub struct Torture<S: State, F> {
    graph: F,
    input: S::Input,
    seeds: Range<u64>,
    answer: Box<dyn Fn(&Question) -> Value + Send + Sync>,
}

/// What a torture has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TortureReport {
    /// How many seeds were run.
    pub seeds: u64,
    /// How often the store failed, or lost its answer.
    pub store_failures: u64,
    /// How often a run was dropped.
    pub drops: u64,
    /// How often a node was made to fail.
    pub node_failures: u64,
    /// How often a thread was gone on with.
    pub resumes: u64,
}

/// A seed under which a thread did not end as it does without accidents.
#[derive(thiserror::Error)]
#[error("seed {seed} ({accidents}): {what}\nrun it alone by `.seeds({seed}..{})`", seed + 1)]
pub struct TortureFailure {
    /// The seed.
    pub seed: u64,
    accidents: String,
    what: String,
}

/// A test shows an error by this.
impl fmt::Debug for TortureFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<S: State, F> fmt::Debug for Torture<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Torture")
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

/// The accidents of one seed; 0 for none.
#[derive(Debug, Clone, Copy, Default)]
struct Accidents {
    store_call: u64,
    lost_commit: u64,
    polls: u64,
    node_entry: u64,
    /// Draws the order in which tasks of one step go on.
    order: Option<u64>,
}

impl fmt::Display for Accidents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = [
            ("store fails at call", self.store_call),
            ("answer lost of commit", self.lost_commit),
            ("run dropped after poll", self.polls),
            ("node fails at entry", self.node_entry),
        ];
        for (what, number) in counted.iter().filter(|(_, number)| *number > 0) {
            write!(f, "{what} {number}, ")?;
        }
        f.write_str(if self.order.is_some() {
            "order shuffled"
        } else {
            "order as it is"
        })
    }
}

/// What an undisturbed thread takes: the room for accidents, and what must come out.
struct Whole {
    calls: u64,
    commits: u64,
    polls: u64,
    entries: u64,
    end: Value,
    effects: BTreeMap<(String, String), u32>,
}

impl Accidents {
    /// One to three of them.
    fn draw(seed: u64, whole: &Whole) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut drawn = Self::default();
        for _ in 0..rng.random_range(1..=3) {
            let (slot, room) = match rng.random_range(0..5) {
                0 => (&mut drawn.store_call, whole.calls),
                1 => (&mut drawn.lost_commit, whole.commits),
                2 => (&mut drawn.polls, whole.polls),
                3 => (&mut drawn.node_entry, whole.entries),
                _ => {
                    drawn.order = Some(rng.random());
                    continue;
                }
            };
            *slot = rng.random_range(1..=room.max(1));
        }
        drawn
    }
}

/// A layer that lets one entry of a node fail, and lets tasks side by side go on in another order.
struct Disturb {
    entries: AtomicU64,
    fail_at: u64,
    struck: AtomicU64,
    order: Option<Mutex<StdRng>>,
}

/// How often a task lets others go first, at most.
const YIELDS_MAX: u32 = 8;

#[async_trait]
impl Layer for Arc<Disturb> {
    async fn around(&self, _: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        let entry = self.entries.fetch_add(1, Ordering::SeqCst) + 1;
        let yields = self.order.as_ref().map_or((0, 0), |rng| {
            let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
            (rng.random_range(0..YIELDS_MAX), rng.random_range(0..YIELDS_MAX))
        });
        for _ in 0..yields.0 {
            tokio::task::yield_now().await;
        }
        if entry == self.fail_at {
            self.struck.fetch_add(1, Ordering::SeqCst);
            return Err(NodeError::retryable("it was told to fail"));
        }
        let ran = next.run().await;
        for _ in 0..yields.1 {
            tokio::task::yield_now().await;
        }
        ran
    }
}

/// One thread on its way to its end.
struct Patient<'a, S: State> {
    graph: Graph<S>,
    thread: ThreadKey,
    input: &'a S::Input,
    answer: &'a (dyn Fn(&Question) -> Value + Send + Sync),
    store: FaultyStore<Memory>,
    disturb: Arc<Disturb>,
    /// Polls after which it is dropped, once.
    drop_after: Option<u64>,
    polls: u64,
    drops: u64,
    resumes: u64,
}

impl<S: State> Patient<'_, S> {
    /// Runs, and goes on as often as it takes. The error says what went wrong.
    async fn treat(&mut self) -> Result<Value, String> {
        let mut answers = Answers::None;
        let mut known = false;
        for _ in 0..RESUMES_MAX {
            let run = if known {
                self.resumes += 1;
                self.graph.resume(&self.thread).answers(std::mem::take(&mut answers))
            } else {
                self.graph.run(&self.thread, self.input.clone())
            };
            known = true;
            let before = self.accidents();
            match self.poll(run).await {
                Some(Ok(Outcome::Asked(questions))) => {
                    let answer = |question: Question| {
                        let value = (self.answer)(&question);
                        (question.id, value)
                    };
                    answers = Answers::Many(questions.into_iter().map(answer).collect());
                }
                Some(Ok(Outcome::Done(state))) => return show(&state),
                Some(Ok(Outcome::Stalled { state, waiting })) => {
                    return show(&state).map(|state| Value::from(vec![state, format!("{waiting:?}").into()]));
                }
                Some(Err(RunError::UnknownThread { .. })) => known = false,
                Some(Err(error)) if self.accidents() == before => return Err(format!("the run failed: {error}")),
                // Dropped, failed by an accident, or stopped short of its end: it is gone on with.
                Some(Err(_) | Ok(Outcome::Breakpoint(_) | Outcome::Drained | Outcome::Cancelled)) | None => {}
            }
        }
        Err(format!("no end after it was gone on with {RESUMES_MAX} times"))
    }

    /// Polls the run until it ends, or until it is to be dropped.
    async fn poll(&mut self, run: Run<S>) -> Option<Result<Outcome<S>, RunError>> {
        let mut run = pin!(run.into_future());
        let ended = poll_fn(|cx| {
            if self.drop_after == Some(self.polls) {
                return Poll::Ready(None);
            }
            self.polls += 1;
            run.as_mut().poll(cx).map(Some)
        })
        .await;
        if ended.is_none() {
            self.drop_after = None;
            self.drops += 1;
        }
        ended
    }

    /// How many accidents have struck so far.
    fn accidents(&self) -> u64 {
        self.store.accidents() + self.disturb.struck.load(Ordering::SeqCst)
    }

    fn effects(&self) -> BTreeMap<(String, String), u32> {
        let mut effects = BTreeMap::new();
        for (_, task, key, times) in self.store.effects() {
            *effects.entry((task, key)).or_default() += times;
        }
        effects
    }
}

fn show<S: State>(state: &S) -> Result<Value, String> {
    serde_json::to_value(state).map_err(|error| format!("the state does not become JSON: {error}"))
}

impl<S: State, F: Fn() -> Graph<S>> Torture<S, F> {
    /// Which seeds to run; the first hundred otherwise.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How questions are answered; `true` otherwise. An effect of class other that was cut off asks too, as
    /// [`InDoubt`](crate::InDoubt).
    pub fn answers(mut self, answer: impl Fn(&Question) -> Value + Send + Sync + 'static) -> Self {
        self.answer = Box::new(answer);
        self
    }

    /// Runs the graph without accidents, then once for each seed.
    ///
    /// # Errors
    /// The first seed whose thread has not come to the same end, or in which a recorded effect has run twice.
    pub async fn run(self) -> Result<TortureReport, TortureFailure> {
        let whole = self.undisturbed().await?;
        let mut report = TortureReport::default();
        for seed in self.seeds.clone() {
            let accidents = Accidents::draw(seed, &whole);
            let failure = |what| TortureFailure {
                seed,
                accidents: accidents.to_string(),
                what,
            };
            let mut patient = self.patient(accidents).map_err(failure)?;
            let end = patient.treat().await.map_err(failure)?;
            if end != whole.end {
                return Err(failure(format!(
                    "the thread ended otherwise than without accidents:\n  without {}\n  with    {end}",
                    whole.end
                )));
            }
            if let Some((_, task, key, times)) = patient.store.effects().into_iter().find(|effect| effect.3 > 1) {
                return Err(failure(format!(
                    "effect `{key}` of task `{task}` has run {times} times"
                )));
            }
            let effects = patient.effects();
            if effects != whole.effects {
                return Err(failure(format!(
                    "other effects were recorded than without accidents:\n  without {:?}\n  with    {effects:?}",
                    whole.effects
                )));
            }
            report.seeds += 1;
            report.store_failures += patient.store.accidents();
            report.drops += patient.drops;
            report.node_failures += patient.disturb.struck.load(Ordering::SeqCst);
            report.resumes += patient.resumes;
        }
        Ok(report)
    }

    async fn undisturbed(&self) -> Result<Whole, TortureFailure> {
        let failure = |what| TortureFailure {
            seed: self.seeds.start,
            accidents: "before any accident".to_owned(),
            what,
        };
        let mut patient = self.patient(Accidents::default()).map_err(failure)?;
        let end = patient.treat().await.map_err(failure)?;
        Ok(Whole {
            calls: patient.store.calls(),
            commits: patient.store.commits(),
            polls: patient.polls,
            entries: patient.disturb.entries.load(Ordering::SeqCst),
            end,
            effects: patient.effects(),
        })
    }

    fn patient(&self, accidents: Accidents) -> Result<Patient<'_, S>, String> {
        let store = FaultyStore::over(Memory::new());
        store.fail_at(accidents.store_call);
        store.lose_answer_at(accidents.lost_commit);
        let disturb = Arc::new(Disturb {
            entries: AtomicU64::new(0),
            fail_at: accidents.node_entry,
            struck: AtomicU64::new(0),
            order: accidents.order.map(|seed| Mutex::new(StdRng::seed_from_u64(seed))),
        });
        let tenant = TenantId::authenticated("torture").map_err(|error| error.to_string())?;
        let thread = ThreadId::new("thread").map_err(|error| error.to_string())?;
        Ok(Patient {
            graph: (self.graph)()
                .checkpointer(store.clone())
                .clock(ManualClock::new())
                .layer(Arc::clone(&disturb)),
            thread: ThreadKey::new(tenant, thread),
            input: &self.input,
            answer: &*self.answer,
            store,
            disturb,
            drop_after: (accidents.polls > 0).then_some(accidents.polls),
            polls: 0,
            drops: 0,
            resumes: 0,
        })
    }
}
