//! What a run tells while it runs.

mod inside;
mod sink;

use std::{
    borrow::Cow,
    fmt,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context as Poll0, Poll},
    time::Duration,
};

use futures_core::Stream;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::inside::{Inside, InsideKind};
pub(crate) use self::sink::{Hears, Sink};
use super::breakpoint::Stop;
use crate::{
    ask::Question,
    checkpoint::{CheckpointSource, Seq},
    state::State,
};

/// Something that happened in a run.
pub struct Event<S: State> {
    /// Counts up by one from 1 within the run.
    pub seq: u64,
    /// The nodes, from the outermost in, whose graphs it happened inside; empty for the run's own graph.
    pub path: Path,
    /// What happened.
    pub kind: EventKind<S>,
}

/// The nodes that host a graph inside a graph, from the outermost in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(Option<Arc<[Cow<'static, str>]>>);

impl Path {
    pub(crate) fn of(hosts: Vec<Cow<'static, str>>) -> Self {
        Self((!hosts.is_empty()).then(|| hosts.into()))
    }
}

impl Deref for Path {
    type Target = [Cow<'static, str>];

    fn deref(&self) -> &[Cow<'static, str>] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A task as the beginning of its step names it.
#[derive(Debug, Clone, PartialEq)]
pub struct StartedTask {
    /// Its node.
    pub node: Cow<'static, str>,
    /// Its id inside the step: the node's name, and `#` with the number of the send behind it for a fan-out.
    pub task: String,
    /// What a fan-out feeds it with, as JSON; only for readers of [`Extra::Payloads`].
    pub payload: Option<Value>,
}

/// What happened in a run. Within a step: `Step`, then what nodes emit as they emit it and `Update` for each task as it
/// finishes, then `Values`, then `Saved`. Under [`Durability::Async`](crate::Durability::Async) `Saved` may come while the
/// next step runs, always before that step's own; under [`Durability::Exit`](crate::Durability::Exit) it is told of the
/// checkpoints that are written, and of no others.
#[non_exhaustive]
pub enum EventKind<S: State> {
    /// A step begins with these tasks.
    Step {
        /// Its number on the thread.
        step: i64,
        /// The tasks, in the order in which their updates will apply.
        tasks: Vec<StartedTask>,
    },
    /// A task has finished with this update. It is not saved yet.
    Update {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
        /// What it writes, without the values for secret fields.
        update: S::Update,
        /// Whether the node cache had it, so that the node did not run.
        cached: bool,
    },
    /// A node has emitted an event.
    Custom {
        /// The node.
        node: Cow<'static, str>,
        /// What it emitted.
        event: S::Event,
    },
    /// A task has failed and is tried again.
    Retry {
        /// The task's node.
        node: Cow<'static, str>,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Why.
        error: String,
        /// How long the next attempt waits.
        delay: Duration,
    },
    /// A task has failed for good, and its handler takes over in the same step.
    Handed {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
        /// The handler.
        handler: Cow<'static, str>,
        /// Why it failed.
        error: String,
    },
    /// A task has failed for good.
    Failed {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
        /// Why.
        error: String,
    },
    /// A join has cancelled a task: it waits for it no longer.
    Cancelled {
        /// The task's node.
        node: Cow<'static, str>,
        /// The task.
        task: String,
    },
    /// A task asks.
    Asked {
        /// What it asks.
        question: Question,
    },
    /// The run has come to a breakpoint and ends there.
    Paused {
        /// Which.
        at: Stop,
    },
    /// The state after a step that has changed it, and once where a run stops to ask, with the updates of the tasks that have
    /// finished; only for readers of [`Extra::Values`].
    Values {
        /// The state, without the values of secret fields.
        state: Arc<S>,
        /// The fields that changed.
        changed: Vec<Cow<'static, str>>,
    },
    /// A step's end is durable. Without a checkpointer, `checkpoint` is `None` and the step has just ended.
    Saved {
        /// The step that ended.
        step: i64,
        /// Why there is a checkpoint.
        source: CheckpointSource,
        /// The nodes of the tasks that follow.
        next: Vec<Cow<'static, str>>,
        /// The checkpoint's number and its outer id.
        checkpoint: Option<(Seq, Uuid)>,
        /// The state that was saved, without the values of secret fields; only for readers of [`Extra::Checkpoints`].
        state: Option<Arc<S>>,
    },
    /// Something happened in a graph inside a node; only for readers of [`Extra::Inside`].
    Inside(InsideKind),
}

/// What a reader may ask to hear that costs a run extra: a copy of the state, or its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extra {
    /// [`EventKind::Values`] after every step.
    Values,
    /// The state in [`EventKind::Saved`].
    Checkpoints,
    /// The payloads in [`StartedTask`].
    Payloads,
    /// What happens in graphs inside nodes, [`EventKind::Inside`].
    Inside,
}

impl<S: State> EventKind<S> {
    /// The same with states and updates as JSON, for readers that serve graphs of any state; what is secret reads
    /// `"[secret]"`. `None`, with a line in the
    /// log, if they do not become JSON.
    #[must_use]
    pub fn into_json(self) -> Option<Inside<S::Event>> {
        Inside::of(self)
    }
}

impl<S: State> fmt::Debug for Event<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?}", self.seq, self.kind)
    }
}

/// What was written and emitted is left out: it may be secret.
impl<S: State> fmt::Debug for EventKind<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step, tasks } => {
                let tasks: Vec<_> = tasks.iter().map(|task| &task.task).collect();
                write!(f, "step {step} {tasks:?}")
            }
            Self::Update { task, .. } => write!(f, "update of {task}"),
            Self::Custom { node, .. } => write!(f, "custom of {node}"),
            Self::Retry { node, attempt, .. } => write!(f, "retry of {node} after attempt {attempt}"),
            Self::Handed { task, handler, .. } => write!(f, "failure of {task} handed to {handler}"),
            Self::Failed { task, .. } => write!(f, "failure of {task}"),
            Self::Cancelled { task, .. } => write!(f, "cancellation of {task}"),
            Self::Asked { question } => write!(f, "asked {}", question.id),
            Self::Paused { at } => write!(f, "paused {at:?}"),
            Self::Values { .. } => f.write_str("values"),
            Self::Saved { step, .. } => write!(f, "saved {step}"),
            Self::Inside(kind) => write!(f, "inside: {}", kind.name()),
        }
    }
}

/// What becomes of a run whose reader has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderGone {
    /// It goes on to its end, unheard.
    Finish,
    /// It is cancelled.
    Cancel,
}

/// Makes the two ends of an event stream that holds `capacity` events at most. A slow reader slows the run down; a
/// reader that is dropped does what `gone` says.
#[must_use]
pub fn events<S: State>(capacity: usize, gone: ReaderGone) -> (EventSender<S>, EventReader<S>) {
    let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
    let (queue, waiting) = mpsc::channel(capacity);
    let gate = Arc::new(Semaphore::new(capacity));
    let dropped = CancellationToken::new();
    let sender = EventSender {
        shared: Arc::new(Shared {
            queue,
            gate: Arc::clone(&gate),
        }),
        reader_gone: (gone == ReaderGone::Cancel).then(|| dropped.clone()),
        hears: Hears::default(),
    };
    let reader = EventReader {
        waiting,
        heard: 0,
        gate,
        dropped,
    };
    (sender, reader)
}

/// Where a run puts its events.
pub struct EventSender<S: State> {
    shared: Arc<Shared<S>>,
    pub(crate) reader_gone: Option<CancellationToken>,
    hears: Hears,
}

impl<S: State> EventSender<S> {
    /// Sends this as well.
    #[must_use]
    pub const fn with(mut self, extra: Extra) -> Self {
        self.hears = self.hears.with(extra);
        self
    }
}

impl<S: State> fmt::Debug for EventSender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSender")
            .field("room", &self.shared.gate.available_permits())
            .finish_non_exhaustive()
    }
}

pub(crate) struct Shared<S: State> {
    /// Never full: a permit of `gate` is taken before each send and given back after each receive.
    queue: mpsc::Sender<(Path, EventKind<S>)>,
    gate: Arc<Semaphore>,
}

impl<S: State> Shared<S> {
    fn send(&self, path: Path, kind: EventKind<S>) {
        // A reader that has gone is no error; the queue cannot be full.
        let _unheard = self.queue.try_send((path, kind));
    }
}

/// The events of a run, in order. Dropping it tells the run that nobody listens.
#[derive(Debug)]
pub struct EventReader<S: State> {
    waiting: mpsc::Receiver<(Path, EventKind<S>)>,
    /// Events are numbered as they are read: tasks that emit at once cannot get in between.
    heard: u64,
    gate: Arc<Semaphore>,
    dropped: CancellationToken,
}

impl<S: State> EventReader<S> {
    /// The next event, or `None` when the run has ended.
    pub async fn next(&mut self) -> Option<Event<S>> {
        let sent = self.waiting.recv().await?;
        Some(self.hear(sent))
    }

    /// The next event that waits to be read, if one does.
    pub(super) fn try_next(&mut self) -> Option<Event<S>> {
        let sent = self.waiting.try_recv().ok()?;
        Some(self.hear(sent))
    }

    fn hear(&mut self, (path, kind): (Path, EventKind<S>)) -> Event<S> {
        self.gate.add_permits(1);
        self.heard += 1;
        Event {
            seq: self.heard,
            path,
            kind,
        }
    }
}

impl<S: State> Stream for EventReader<S> {
    type Item = Event<S>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Poll0<'_>) -> Poll<Option<Event<S>>> {
        let polled = self.waiting.poll_recv(cx);
        polled.map(|sent| sent.map(|sent| self.hear(sent)))
    }
}

impl<S: State> Drop for EventReader<S> {
    fn drop(&mut self) {
        self.gate.close();
        self.dropped.cancel();
    }
}
