//! A graph without its type: JSON in, JSON out.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::Value;
use stepgraph::{
    Answers, AsNode, Cancel, Extra, HistoryEntry, InsideKind, OnBusy, OnPending, Outline, Path, Question, RunError,
    RunId, TaskState, ThreadKey,
    checkpoint::{At, Page, RunMark, Seq},
};
use stepgraph_nodes::trace::TraceParent;

use super::{
    fault::Words,
    registration::{Heard, Occasion},
    tenants::Refusal,
};

/// A registered graph, as handlers see it.
#[async_trait]
pub(crate) trait ServedGraph: Send + Sync {
    fn name(&self) -> &str;

    fn outline(&self) -> Outline;

    fn schemas(&self) -> &Schemas;

    /// What callers are told of its errors.
    fn words(&self) -> Words;

    async fn state(&self, thread: &ThreadKey, at: At) -> Result<Option<StateView>, RunError>;

    async fn history(&self, thread: &ThreadKey, page: Page) -> Result<Vec<HistoryEntry>, RunError>;

    async fn update(&self, thread: &ThreadKey, at: At, values: Value, as_node: AsNode) -> Result<Seq, Unserved>;

    async fn unfinished(&self, limit: u32) -> Result<Vec<ThreadKey>, RunError>;

    /// Prepares a run; it goes on while its stream is polled.
    async fn begin(&self, thread: &ThreadKey, begin: Begin) -> Result<Events, Unserved>;
}

/// What a run tells, up to its end or its error.
pub(crate) type Events = BoxStream<'static, Result<Told, RunError>>;

/// JSON schemas of a graph, where its types have them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas {
    pub(crate) input: Option<Value>,
    pub(crate) state: Option<Value>,
}

/// A thread's state at one checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct StateView {
    pub(crate) values: Value,
    pub(crate) entry: HistoryEntry,
    pub(crate) tasks: Vec<TaskState>,
    pub(crate) questions: Vec<Question>,
    pub(crate) run: Option<RunMark>,
}

/// How a run begins.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) what: What,
    pub(crate) run: RunId,
    pub(crate) cancel: Cancel,
    pub(crate) occasion: Occasion,
    /// The trace that all the run does is part of.
    pub(crate) trace: Option<TraceParent>,
    pub(crate) step_limit: Option<u32>,
    pub(crate) on_busy: OnBusy,
    pub(crate) on_pending: OnPending,
    pub(crate) at: Option<At>,
    pub(crate) stop_before: Option<Vec<String>>,
    pub(crate) stop_after: Option<Vec<String>>,
    pub(crate) update: Option<Value>,
    pub(crate) goto: Vec<String>,
    pub(crate) extras: Vec<Extra>,
}

impl Begin {
    pub(crate) fn new(what: What, run: RunId, cancel: Cancel) -> Self {
        Self {
            what,
            run,
            cancel,
            occasion: Occasion::Asked,
            trace: None,
            step_limit: None,
            on_busy: OnBusy::Wait,
            on_pending: OnPending::Reject,
            at: None,
            stop_before: None,
            stop_after: None,
            update: None,
            goto: Vec::new(),
            extras: Vec::new(),
        }
    }
}

/// What a run begins with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Input(Value),
    GoOn(Answers),
}

/// What a run tells.
#[derive(Debug)]
pub(crate) enum Told {
    Said { path: Path, node: String, heard: Heard },
    Happened { path: Path, kind: Box<InsideKind> },
    Ended(Ended),
}

/// What a run has come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    Done(Value),
    Asked(Vec<Question>),
    Paused,
    Cancelled,
    Stalled(Value),
}

/// Why there is no run.
#[derive(Debug)]
pub(crate) enum Unserved {
    /// JSON that is not as the graph wants it; says where.
    Unfit(String),
    Refused(Refusal),
    Run(RunError),
}

impl From<RunError> for Unserved {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Unserved> for crate::error::ApiError {
    fn from(unserved: Unserved) -> Self {
        match unserved {
            Unserved::Unfit(message) => Self::unfit("unfit", message),
            Unserved::Refused(Refusal(error)) => error,
            Unserved::Run(error) => Self::of_thread(&error),
        }
    }
}
