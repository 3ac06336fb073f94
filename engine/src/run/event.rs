//! What a run tells while it runs.

use std::{
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context as Poll0, Poll},
    time::Duration,
};

use futures_core::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ask::Question,
    checkpoint::Seq,
    graph::Topology,
    node::{Emit, Emitter},
    state::State,
};

/// Something that happened in a run.
pub struct Event<S: State> {
    /// Counts up by one from 1 within the run.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind<S>,
}

/// What happened in a run. Within a step: `Step`, then what nodes emit as they emit it, then `Update` for each task that
/// has finished, then `Saved`.
#[non_exhaustive]
pub enum EventKind<S: State> {
    /// A step begins with these tasks.
    Step {
        /// Its number on the thread.
        step: i64,
        /// The tasks' nodes, in the order in which their updates will apply.
        tasks: Vec<Cow<'static, str>>,
    },
    /// A task has finished with this update. It is not saved yet.
    Update {
        /// The task's node.
        node: Cow<'static, str>,
        /// What it writes.
        update: S::Update,
    },
    /// A node has emitted an event.
    Custom {
        /// The node, of this graph or the host of the graph inside it.
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
    /// A task asks.
    Asked {
        /// What it asks.
        question: Question,
    },
    /// A step's end is durable. Without a checkpointer, `checkpoint` is `None` and the step has just ended.
    Saved {
        /// The step that ended.
        step: i64,
        /// The checkpoint's number and its outer id.
        checkpoint: Option<(Seq, Uuid)>,
    },
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
            Self::Step { step, tasks } => write!(f, "step {step} {tasks:?}"),
            Self::Update { node, .. } => write!(f, "update of {node}"),
            Self::Custom { node, .. } => write!(f, "custom of {node}"),
            Self::Retry { node, attempt, .. } => write!(f, "retry of {node} after attempt {attempt}"),
            Self::Asked { question } => write!(f, "asked {}", question.id),
            Self::Saved { step, .. } => write!(f, "saved {step}"),
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
    queue: mpsc::Sender<EventKind<S>>,
    gate: Arc<Semaphore>,
}

impl<S: State> Shared<S> {
    fn send(&self, kind: EventKind<S>) {
        // A reader that has gone is no error; the queue cannot be full.
        let _unheard = self.queue.try_send(kind);
    }
}

/// The events of a run, in order. Dropping it tells the run that nobody listens.
#[derive(Debug)]
pub struct EventReader<S: State> {
    waiting: mpsc::Receiver<EventKind<S>>,
    /// Events are numbered as they are read: tasks that emit at once cannot get in between.
    heard: u64,
    gate: Arc<Semaphore>,
    dropped: CancellationToken,
}

impl<S: State> EventReader<S> {
    /// The next event, or `None` when the run has ended.
    pub async fn next(&mut self) -> Option<Event<S>> {
        let kind = self.waiting.recv().await?;
        Some(self.hear(kind))
    }

    /// The next event that waits to be read, if one does.
    pub(super) fn try_next(&mut self) -> Option<Event<S>> {
        let kind = self.waiting.try_recv().ok()?;
        Some(self.hear(kind))
    }

    fn hear(&mut self, kind: EventKind<S>) -> Event<S> {
        self.gate.add_permits(1);
        self.heard += 1;
        Event { seq: self.heard, kind }
    }
}

impl<S: State> Stream for EventReader<S> {
    type Item = Event<S>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Poll0<'_>) -> Poll<Option<Event<S>>> {
        let polled = self.waiting.poll_recv(cx);
        polled.map(|kind| kind.map(|kind| self.hear(kind)))
    }
}

impl<S: State> Drop for EventReader<S> {
    fn drop(&mut self) {
        self.gate.close();
        self.dropped.cancel();
    }
}

/// Where the driver puts a run's events, if anybody listens.
pub(crate) enum Sink<S: State> {
    Nobody,
    Reader {
        shared: Arc<Shared<S>>,
        topology: Arc<Topology>,
    },
    /// The run of a graph inside a node: what its nodes emit becomes what the node emits.
    Host(Emitter<S::Event>),
}

impl<S: State> Sink<S> {
    pub(crate) fn of(sender: Option<EventSender<S>>, topology: &Arc<Topology>) -> Self {
        sender.map_or(Self::Nobody, |sender| Self::Reader {
            shared: sender.shared,
            topology: Arc::clone(topology),
        })
    }

    /// Whether anybody hears more than what nodes emit.
    pub(crate) const fn is_heard(&self) -> bool {
        matches!(self, Self::Reader { .. })
    }

    /// Sends an event, waiting for room.
    pub(crate) async fn send(&self, kind: EventKind<S>) {
        if let Self::Reader { shared, .. } = self
            && let Ok(permit) = shared.gate.acquire().await
        {
            permit.forget();
            shared.send(kind);
        }
    }

    /// The way out for what nodes emit.
    pub(crate) fn emitter(&self) -> Option<Emitter<S::Event>> {
        match self {
            Self::Nobody => None,
            Self::Reader { shared, topology } => Some(Emitter {
                gate: Arc::clone(&shared.gate),
                out: Arc::new(Custom {
                    shared: Arc::clone(shared),
                    topology: Arc::clone(topology),
                }),
            }),
            Self::Host(emitter) => Some(emitter.clone()),
        }
    }
}

struct Custom<S: State> {
    shared: Arc<Shared<S>>,
    topology: Arc<Topology>,
}

impl<S: State> Emit<S::Event> for Custom<S> {
    fn send(&self, node: usize, event: S::Event) {
        self.shared.send(EventKind::Custom {
            node: self.topology.name(node).clone(),
            event,
        });
    }
}
