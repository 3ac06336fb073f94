//! Runs: a graph, a thread and an input become an outcome.

mod answer;
mod barrier;
mod begin;
mod behind;
mod branch;
mod breakpoint;
mod budget;
mod busy;
mod cache;
mod command;
mod drain;
mod driver;
mod edit;
mod error;
mod event;
mod follow;
mod frontier;
mod guard;
mod hosting;
mod items;
mod journal;
mod layers;
mod limits;
mod merge;
mod open;
mod plan;
mod quick;
mod race;
mod read;
mod recorded;
mod recording;
mod replay;
mod retry;
mod saver;
mod select;
mod settle;
mod sprint;
mod step;
mod straight;
mod stream;
mod subgraph;
mod suspend;
mod tasks;
mod timeout;
mod transfer;
mod version;
mod view;
mod waiting;
mod ways;

use std::{
    borrow::Cow,
    fmt,
    future::{Future, IntoFuture},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use self::{
    behind::Durability,
    breakpoint::{Breakpoints, Stop},
    budget::{Budget, OnBudget, OverBudget, RaiseBudget, Spend, Spent},
    busy::OnBusy,
    drain::Drain,
    edit::AsNode,
    error::{NodePanic, RunError},
    event::{
        Event, EventKind, EventReader, EventSender, Extra, Inside, InsideKind, Path, ReaderGone, StartedTask, events,
    },
    read::{HistoryEntry, Retrying, Snapshot, TaskState},
    recording::Recording,
    replay::{Difference, Divergence, REPLAY_CHECKPOINTS_DEFAULT, Replay, Replayed},
    select::{Selected, SelectedPage, Selection},
    step::StoredOutput,
    stream::{RunEvent, RunStream},
    subgraph::{Ended, OrLeft, Subgraph, SubgraphError, SubgraphMode},
    timeout::{NodeTimeout, TimeoutKind},
    transfer::{THREAD_FORMAT, TransferError},
    version::Versions,
};
pub(crate) use self::{
    behind::StoreHandle,
    breakpoint::Nodes,
    budget::Meter,
    busy::Busy,
    command::Command,
    driver::{Left, RunEnd},
    event::Hears,
    frontier::{Bytes, PlainFrontiers},
    hosting::enter,
    journal::{Journal, decode_record, encode_record},
    limits::RunLimit,
    recorded::unnamed_answer,
    replay::Notes,
    version::Inherited,
    ways::Ways,
};
use crate::{
    ask::{Answers, Ask, Question},
    cache::NodeCache,
    checkpoint::{At, OutboxMessage},
    graph::{Goto, Graph},
    id::{RunId, ThreadKey},
    node::{Held, TaskContext, TypeMap},
    state::State,
};

/// How many steps a run may take unless told otherwise.
pub const STEP_LIMIT_DEFAULT: u32 = 100;

/// How a run ended, short of an error.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome<S> {
    /// Nothing is left to do.
    Done(S),
    /// It waits for answers. Nothing runs and nothing is held meanwhile.
    Asked(Vec<Question>),
    /// It has come to a breakpoint; resuming it goes on.
    Breakpoint(Stop),
    /// It was drained: its step is saved, tasks are left, and it may be resumed.
    Drained,
    /// It was cancelled; its finished tasks are kept, and it may be resumed.
    Cancelled,
    /// Nothing is left to do, but joins still wait for nodes that were never started.
    Stalled {
        /// The state as it is.
        state: S,
        /// What waits for what.
        waiting: Vec<StalledJoin>,
    },
}

/// A join that cannot fire any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StalledJoin {
    /// The nodes it would have started.
    pub to: Vec<String>,
    /// The sources that never finished.
    pub missing: Vec<String>,
}

impl<S> Outcome<S> {
    /// The last state, if the run has come to its end.
    #[must_use]
    pub fn done(self) -> Option<S> {
        match self {
            Self::Done(state) => Some(state),
            Self::Asked(_) | Self::Breakpoint(_) | Self::Drained | Self::Cancelled | Self::Stalled { .. } => None,
        }
    }
}

/// What to do with new input on a thread whose last run has tasks left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnPending {
    /// Refuse with [`RunError::Pending`].
    #[default]
    Reject,
    /// Discard the tasks, their questions and their results, and begin anew. They stay in the history, at the checkpoint
    /// that they were to run from.
    Discard,
    /// Merge the results of the tasks that have finished, discard the others, and begin anew.
    CommitFinished,
}

/// A handle that cancels runs. Clones cancel the same.
#[derive(Debug, Clone, Default)]
pub struct Cancel(pub(crate) CancellationToken);

impl Cancel {
    /// A handle that has cancelled nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels every run that was given this handle, at any depth.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether it has been used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// What a run begins with.
pub(crate) enum Beginning<S: State> {
    Input(S::Input),
    Resume(Answers),
}

/// How a run is carried out.
pub(crate) struct Options<S: State> {
    pub(crate) run: Option<RunId>,
    pub(crate) step_limit: u32,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) durability: Durability,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) drain: Option<Drain>,
    pub(crate) budget: Option<Budget>,
    pub(crate) events: Option<EventSender<S>>,
    pub(crate) on_busy: OnBusy,
    pub(crate) on_pending: Option<OnPending>,
    /// Whether other tasks of the outer graph use the thread as well, one in a step.
    pub(crate) accumulates: bool,
    pub(crate) at: Option<At>,
    pub(crate) stop_before: Option<Nodes>,
    pub(crate) stop_after: Option<Nodes>,
    pub(crate) command: Option<Command<S>>,
    pub(crate) provided: TypeMap,
    pub(crate) recording: Option<Recording>,
    /// The record that the run's tasks are replayed from.
    pub(crate) replay: Option<Arc<Notes>>,
    pub(crate) outbox: Vec<OutboxMessage>,
    pub(crate) reader_gone: Option<CancellationToken>,
    pub(crate) concurrency: Option<NonZeroU32>,
    pub(crate) held: Option<Arc<Held>>,
    /// The task that the run is part of, if its graph is inside another.
    pub(crate) outer: Option<Box<TaskContext>>,
    /// The node cache of the graph around this one.
    pub(crate) cache: Option<Arc<dyn NodeCache>>,
}

impl<S: State> Default for Options<S> {
    fn default() -> Self {
        Self {
            run: None,
            step_limit: STEP_LIMIT_DEFAULT,
            time_limit: None,
            durability: Durability::default(),
            cancel: None,
            drain: None,
            budget: None,
            events: None,
            on_busy: OnBusy::default(),
            on_pending: None,
            accumulates: false,
            at: None,
            stop_before: None,
            stop_after: None,
            command: None,
            provided: TypeMap::default(),
            recording: None,
            replay: None,
            outbox: Vec::new(),
            reader_gone: None,
            concurrency: None,
            held: None,
            outer: None,
            cache: None,
        }
    }
}

/// A run about to begin: await it, or set its options first.
///
/// # Cancel safety
/// Dropping it stops the run where it is. What was saved stays saved, and the thread can be resumed.
#[must_use = "a run begins when it is awaited"]
pub struct Run<S: State> {
    pub(crate) graph: Graph<S>,
    pub(crate) key: ThreadKey,
    pub(crate) beginning: Beginning<S>,
    /// How many steps it may take, where it says so itself: the one option that runs may have which begin at once.
    pub(crate) step_limit: Option<u32>,
    /// In a box: a run is moved several times before it begins. Most runs say nothing.
    pub(crate) options: Option<Box<Options<S>>>,
}

impl<S: State> fmt::Debug for Run<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("graph", &self.graph)
            .field("thread", &self.key)
            .finish_non_exhaustive()
    }
}

impl<S: State> Graph<S> {
    /// Runs the graph on a thread with new input.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State, TenantId, ThreadId, ThreadKey};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input)] n: u64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut g = Graph::<Count>::builder("count");
    /// # let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
    /// # g.edge(START, add).edge(add, END);
    /// # let graph = g.build()?;
    /// let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    /// let outcome = graph.run(&thread, CountInput { n: 1 }).step_limit(10).await?;
    /// assert_eq!(outcome.done().map(|count| count.n), Some(2));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RunError`]: what failed, where, and what to do. What had finished is kept.
    #[inline]
    pub fn run(&self, thread: &ThreadKey, input: S::Input) -> Run<S> {
        Run {
            graph: self.clone(),
            key: thread.clone(),
            beginning: Beginning::Input(input),
            step_limit: None,
            options: None,
        }
    }

    /// Runs again what followed from an older checkpoint, on a branch of its own. Nodes before it do not run; those after it
    /// do, whether or not they had finished, and ask their questions anew.
    ///
    /// # Errors
    /// As [`resume`](Self::resume); [`RunError::NoCheckpoint`] if the thread has none there.
    pub fn rerun_from(&self, thread: &ThreadKey, at: At) -> Run<S> {
        self.resume(thread).at(at)
    }

    /// Goes on with a thread's last run: after a crash, a failure, a cancellation, or with answers to its questions.
    /// A run that has ended is returned as it ended.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`RunError::UnknownThread`] if nothing was ever saved.
    pub fn resume(&self, thread: &ThreadKey) -> Run<S> {
        Run {
            graph: self.clone(),
            key: thread.clone(),
            beginning: Beginning::Resume(Answers::None),
            step_limit: None,
            options: None,
        }
    }
}

impl<S: State> Graph<S> {
    /// What the graph needs and was not provided with.
    fn missing(&self, provided: &TypeMap) -> Option<RunError> {
        let required = self.parts.requires.iter();
        let mut missing = required
            .filter(|(id, _)| !provided.contains(*id))
            .map(|(_, name)| *name);
        missing.next().map(|name| RunError::Missing {
            graph: self.name().to_owned(),
            name,
        })
    }
}

impl<S: State> Run<S> {
    /// Answers the thread's only open question.
    pub fn answer<Q: Ask>(self, answer: &Q::Answer) -> Self {
        self.answers(Answers::One(serde_json::to_value(answer).unwrap_or(Value::Null)))
    }

    /// Answers open questions; each answer is checked against its question's type when its node is entered.
    pub fn answers(mut self, answers: Answers) -> Self {
        self.beginning = Beginning::Resume(answers);
        self
    }

    /// Names the run; a fresh id otherwise. A resumed run keeps the id it has.
    pub fn id(mut self, run: RunId) -> Self {
        self.options_mut().run = Some(run);
        self
    }

    /// How many steps it may take, [`STEP_LIMIT_DEFAULT`] otherwise.
    #[inline]
    pub fn step_limit(mut self, steps: u32) -> Self {
        self.step_limit = Some(steps);
        self
    }

    /// Ends the run with [`RunError::TimeLimit`] after this time, whatever the graph's own
    /// [`deadline`](crate::GraphBuilder::deadline).
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options_mut().time_limit = Some(limit);
        self
    }

    /// Lets so many tasks of a step be in flight at once; the others wait for their turn, in their order. A graph inside a node
    /// has the same limit for its own steps.
    pub fn concurrency(mut self, tasks: NonZeroU32) -> Self {
        self.options_mut().concurrency = Some(tasks);
        self
    }

    /// When its steps are durable, [`Durability::Sync`] otherwise. Graphs inside it do as it does.
    ///
    /// ```
    /// # use stepgraph::{Durability, Graph, State, ThreadKey};
    /// # async fn work<S: State>(graph: Graph<S>, thread: &ThreadKey, input: S::Input) -> Result<(), stepgraph::RunError> {
    /// graph.run(thread, input).durability(Durability::Async).await?;
    /// # Ok(()) }
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options_mut().durability = durability;
        self
    }

    /// Lets `cancel` stop it.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.options_mut().cancel = Some(cancel.clone());
        self
    }

    /// Lets `drain` stop it at the end of a step, to be resumed later.
    pub fn drain(mut self, drain: &Drain) -> Self {
        self.options_mut().drain = Some(drain.clone());
        self
    }

    /// How much it may spend, from its input on and with the graphs inside it; nothing is limited otherwise. A run that is
    /// resumed is told anew.
    ///
    /// ```
    /// # use stepgraph::{Budget, Graph, OnBudget, State, ThreadKey};
    /// # async fn work<S: State>(graph: Graph<S>, thread: &ThreadKey, input: S::Input) -> Result<(), stepgraph::RunError> {
    /// graph.run(thread, input).budget(Budget::tokens(50_000).then(OnBudget::Ask)).await?;
    /// # Ok(()) }
    /// ```
    pub fn budget(mut self, budget: Budget) -> Self {
        self.options_mut().budget = Some(budget);
        self
    }

    /// Sends what happens to `sender`, made by [`events`].
    pub fn events(mut self, sender: EventSender<S>) -> Self {
        self.options_mut().events = Some(sender);
        self
    }

    /// What to do if the thread has a run already.
    pub fn on_busy(mut self, policy: OnBusy) -> Self {
        self.options_mut().on_busy = policy;
        self
    }

    /// What to do if the thread's last run has tasks left.
    pub fn on_pending(mut self, policy: OnPending) -> Self {
        self.options_mut().on_pending = Some(policy);
        self
    }

    /// Begins from this checkpoint instead of the thread's newest. What was done since then stays in the history, as another
    /// branch, and the thread goes on from here.
    pub fn at(mut self, at: At) -> Self {
        self.options_mut().at = Some(at);
        self
    }

    /// Stops before a step that would run one of these nodes, instead of where the graph says so itself.
    pub fn stop_before<N: Into<Cow<'static, str>>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.options_mut().stop_before = Some(nodes.into_iter().collect());
        self
    }

    /// Stops after a step that has run one of these nodes, instead of where the graph says so itself.
    pub fn stop_after<N: Into<Cow<'static, str>>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.options_mut().stop_after = Some(nodes.into_iter().collect());
        self
    }

    /// Writes this before going on: for a run that is resumed.
    pub fn update(mut self, update: S::Update) -> Self {
        self.options_mut().command.get_or_insert_default().update = update;
        self
    }

    /// Runs this node as well when going on: for a run that is resumed.
    pub fn goto(mut self, node: impl Into<Cow<'static, str>>) -> Self {
        self.options_mut().command.get_or_insert_default().goto.push(Goto {
            to: node.into(),
            payload: None,
        });
        self
    }

    /// Gives nodes a value by its type, for [`Context::provided`](crate::Context::provided).
    pub fn provide<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.options_mut().provided.insert(value);
        self
    }

    /// Writes down so much that it can be replayed, instead of what the graph says.
    pub fn recording(mut self, recording: Recording) -> Self {
        self.options_mut().recording = Some(recording);
        self
    }

    /// Lets a message leave in the same transaction as the run's admission.
    pub fn outbox(mut self, message: OutboxMessage) -> Self {
        self.options_mut().outbox.push(message);
        self
    }

    /// The run as a stream of its events, ending with its outcome. The run goes on only while the stream is polled.
    pub fn stream(self) -> RunStream<S> {
        self.stream_with([])
    }

    /// The same with events that cost extra.
    pub fn stream_with(self, extras: impl IntoIterator<Item = Extra>) -> RunStream<S> {
        RunStream::new(self, extras)
    }

    fn missing(&self) -> Option<RunError> {
        if self.graph.parts.requires.is_empty() {
            return None;
        }
        match &self.options {
            Some(options) => self.graph.missing(&options.provided),
            None => self.graph.missing(&TypeMap::default()),
        }
    }

    pub(crate) fn options_mut(&mut self) -> &mut Options<S> {
        self.options.get_or_insert_default()
    }

    async fn carry_out(self) -> Result<Outcome<S>, RunError> {
        let driver = match quick::begin(self)? {
            quick::Begun::Open(driver) => driver,
            quick::Begun::Not(run) => return Box::pin(run.open()).await,
        };
        layers::drive(driver).await?.into_outcome()
    }

    /// Begins by reading what its thread has, and runs to its end.
    async fn open(self) -> Result<Outcome<S>, RunError> {
        match Box::pin(open::open(open::prepare(self))).await? {
            open::Opened::Open(driver) => layers::drive(driver).await?.into_outcome(),
            open::Opened::Ended(outcome) => Ok(outcome),
        }
    }
}

impl<S: State> IntoFuture for Run<S> {
    type Output = Result<Outcome<S>, RunError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    #[inline]
    fn into_future(self) -> Self::IntoFuture {
        let first = sprint::Going::first(&self);
        match (self.beginning, first) {
            (Beginning::Input(input), Some(first)) => {
                Box::pin(sprint::Going::of(self.graph, self.key, input, first, self.step_limit))
            }
            (beginning, _) => Box::pin(Self { beginning, ..self }.carry_out()),
        }
    }
}

/// Takes the state out of its `Arc`, copying it only if somebody else still holds it.
#[inline]
pub(crate) fn owned<S: Clone>(state: Arc<S>) -> S {
    Arc::unwrap_or_clone(state)
}
