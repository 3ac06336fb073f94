//! Graphs of any state, served as threads and runs: the room behind `/threads` and `/assistants`.
//!
//! | module | what it knows |
//! |---|---|
//! | `registration` | how a graph of one state becomes a [`ServedGraph`](served::ServedGraph), which knows JSON alone |
//! | `tenants` | whose call it is |
//! | `body` | what a caller may send |
//! | `fault` | what a caller is told of a failed run |
//! | `secret` | what a caller may send for a field that is shown to nobody, and what schemas say of it |
//! | `plan` | what a body means on a thread as it stands |
//! | `carry` | runs, owned by the server |
//! | `telling` | a run's events as they stand on the wire |
//! | `shape` | threads, states and assistants as they stand on the wire |

use std::sync::Arc;

use futures_util::StreamExt;
use stepgraph::{Cancel, OnBusy, RunId, TenantId, ThreadId, ThreadKey, checkpoint::At};
use stepgraph_nodes::{
    service::{ThreadRecord, Threads},
    trace::{TRACEPARENT, TraceParent},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::error::ApiError;

pub(crate) mod body;
mod carry;
pub(crate) mod fault;
mod plan;
mod registration;
mod secret;
mod served;
pub(crate) mod shape;
mod telling;
mod tenants;

pub(crate) use carry::{Finish, Launch, ReaderWants, Reading};
pub(crate) use plan::Plan;
pub use registration::{Heard, Occasion, Registration, RunFor, Serve};
pub(crate) use served::{Begin, ServedGraph, StateView, What};
pub(crate) use telling::{Modes, Teller};
pub use tenants::{Authenticator, FixedKeys, Refusal, SingleTenant};

/// Runs under way and waiting for their thread, of all callers together.
const RUNS_MAX: usize = 1_024;
/// Threads of an earlier process that are gone on with at the same time.
const RECOVERED_AT_ONCE: usize = 4;
/// Threads looked for at once.
const UNFINISHED_PAGE: u32 = 1_000;

/// Everything behind the graph interface, made once.
pub(crate) struct Serving {
    pub(crate) graphs: Vec<Arc<dyn ServedGraph>>,
    pub(crate) threads: Arc<dyn Threads>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// When the server was put together: the default assistants are as old.
    pub(crate) since: chrono::DateTime<chrono::Utc>,
    room: Arc<Semaphore>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Serving {
    pub(crate) fn new(
        graphs: Vec<Arc<dyn ServedGraph>>,
        threads: Arc<dyn Threads>,
        authenticator: Arc<dyn Authenticator>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            graphs,
            threads,
            authenticator,
            since: crate::trace::now(),
            room: Arc::new(Semaphore::new(RUNS_MAX)),
            tracker,
            stop,
        }
    }

    /// The graph of this name.
    pub(crate) fn graph(&self, name: &str) -> Option<&Arc<dyn ServedGraph>> {
        self.graphs.iter().find(|graph| graph.name() == name)
    }

    /// The graph of an assistant, which is named by its id or by the graph's name.
    pub(crate) fn assistant(&self, named: &str) -> Result<&Arc<dyn ServedGraph>, ApiError> {
        let id = Uuid::parse_str(named).ok();
        let mut graphs = self.graphs.iter();
        let found = graphs.find(|graph| graph.name() == named || Some(shape::assistant_id(graph.name())) == id);
        found.ok_or_else(|| {
            let served: Vec<_> = self.graphs.iter().map(|graph| graph.name()).collect();
            ApiError::not_found(
                "unknown_assistant",
                format!("there is no assistant or graph `{named}`: served are {served:?}"),
            )
        })
    }

    /// A tenant's thread. One of another tenant is none.
    pub(crate) async fn thread(&self, tenant: &TenantId, id: Uuid) -> Result<ThreadRecord, ApiError> {
        self.threads
            .get(tenant, id)
            .await?
            .ok_or_else(|| ApiError::not_found("unknown_thread", format!("there is no thread {id}")))
    }

    /// A thread's newest state, if a graph has run on it.
    pub(crate) async fn head(&self, key: &ThreadKey, thread: &ThreadRecord) -> Result<Option<StateView>, ApiError> {
        match thread.graph.as_deref().and_then(|name| self.graph(name)) {
            None => Ok(None),
            Some(graph) => graph
                .state(key, At::Head)
                .await
                .map_err(|error| ApiError::of_thread(&error)),
        }
    }

    /// Goes on with the runs that an earlier process has left behind.
    pub(crate) async fn recover(self: Arc<Self>) {
        for graph in &self.graphs {
            match graph.unfinished(UNFINISHED_PAGE).await {
                Ok(keys) => {
                    // A stop takes up no more of them; what is gone on with comes to its end, within the drain limit.
                    let keys = futures_util::stream::iter(keys).take_until(self.stop.cancelled());
                    let work = keys.map(|key| self.recover_one(graph, key));
                    work.buffer_unordered(RECOVERED_AT_ONCE).collect::<()>().await;
                }
                Err(error) => {
                    tracing::error!(graph = graph.name(), %error, "runs of an earlier process could not be looked for");
                }
            }
        }
    }

    async fn recover_one(&self, graph: &Arc<dyn ServedGraph>, key: ThreadKey) {
        // Threads without a record of ours belong to others, who go on with them by themselves.
        let Ok(id) = Uuid::parse_str(key.thread.as_str()) else {
            return;
        };
        let record = match self.threads.get(&key.tenant, id).await {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(thread = %key, %error, "the record of an unfinished thread could not be read");
                return;
            }
        };
        let begin = Begin {
            on_busy: OnBusy::Wait,
            occasion: Occasion::Recovered,
            trace: kept_trace(&record),
            ..Begin::new(What::GoOn(stepgraph::Answers::None), RunId::random(), Cancel::new())
        };
        match carry::to_the_end(graph, &key, begin).await {
            Ok(()) => tracing::info!(thread = %key, "a run of an earlier process was gone on with"),
            Err(error) => tracing::error!(thread = %key, %error, "a run of an earlier process cannot be gone on with"),
        }
    }

    /// Starts a run on the server's own tasks.
    pub(crate) async fn start(&self, launch: Launch) -> Result<Reading, ApiError> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return Err(ApiError::new(
                crate::error::ErrorCode::ServiceUnavailable,
                format!("{RUNS_MAX} runs are under way already: try again later"),
            ));
        };
        launch.start(permit, &self.tracker).await
    }
}

/// The trace of the newest run on a thread, as its metadata keep it.
pub(crate) fn kept_trace(thread: &ThreadRecord) -> Option<TraceParent> {
    thread.metadata.get(TRACEPARENT)?.as_str()?.parse().ok()
}

/// The key of a thread that is known outside by its UUID.
pub(crate) fn thread_key(tenant: &TenantId, id: Uuid) -> Result<ThreadKey, ApiError> {
    let thread = ThreadId::new(id.to_string()).map_err(|error| ApiError::unfit("thread_id", error.to_string()))?;
    Ok(ThreadKey::new(tenant.clone(), thread))
}

/// The id of a new thread.
#[expect(clippy::disallowed_methods, reason = "the outermost edge of the server")]
pub(crate) fn fresh_thread() -> Uuid {
    Uuid::now_v7()
}
