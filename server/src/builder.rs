//! The server put together: as a router for a host program or a test, or serving a socket until it is told to stop.

use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::HeaderValue, serve::ListenerExt as _};
use stepgraph::Checkpointer;
use stepgraph_nodes::{domains::Domains, service::Threads};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alerts::Courier,
    auth::{CachedClients, ClientKeys},
    backend::{Backend, HttpSettings},
    guard::Guard,
    jobs::JobHandler,
    retention::Expiry,
    route::{self, Rooms},
    serving::{Authenticator, Registration, Serving},
    state::App,
};

/// The HTTP server.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use stepgraph::{Memory, prelude::*};
/// use stepgraph_nodes::service::embedded::SqliteRecords;
/// use stepgraph_server::{Server, SingleTenant};
///
/// #[derive(State, Clone, Serialize, Deserialize)]
/// struct Greeting {
///     #[state(input)]
///     name: String,
///     greeting: Option<String>,
/// }
///
/// # async fn example(records: SqliteRecords) -> Result<(), Box<dyn std::error::Error>> {
/// let mut g = Graph::<Greeting>::builder("greeting");
/// let greet = g.node("greet", |state: Greeting| async move {
///     Ok(Greeting::update().greeting(format!("hello, {}", state.name)))
/// });
/// g.edge(START, greet).edge(greet, END);
///
/// Server::builder()
///     .graph(g.build()?)
///     .checkpointer(Memory::default())
///     .threads(records)
///     .authenticator(SingleTenant::without_keys_for_development("me")?)
///     .serve("127.0.0.1:8000")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Server {
    rooms: Arc<Rooms>,
    /// Owns everything that goes on beside a request.
    tracker: TaskTracker,
    /// Ends the workers.
    stop: CancellationToken,
    drain_limit: Duration,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graphs = self.rooms.serving.iter().flat_map(|serving| &serving.graphs);
        f.debug_struct("Server")
            .field("graphs", &graphs.map(|graph| graph.name()).collect::<Vec<_>>())
            .field("backend", &self.rooms.app.as_ref().map(|app| &app.backend))
            .finish_non_exhaustive()
    }
}

/// Why a server cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// It would answer nothing.
    #[error(
        "nothing to serve: register a graph by `graph(..)`, give it a product by `product(..)`, or routes by `merge(..)`"
    )]
    Nothing,
    /// Two graphs of one name.
    #[error("two graphs are called `{0}`: each needs a name of its own")]
    Twice(String),
    /// Graphs whose threads nobody keeps.
    #[error("graphs are served but nothing keeps their checkpoints: give the server a `checkpointer(..)`")]
    NoCheckpointer,
    /// Graphs whose threads nobody knows.
    #[error("graphs are served but nothing keeps the records of their threads: give the server `threads(..)`")]
    NoThreads,
    /// Graphs that would be served to nobody or to everybody.
    #[error(
        "graphs are served but nobody says whose calls they are: give the server an `authenticator(..)`, such as `FixedKeys`"
    )]
    NoAuthenticator,
    /// An origin that no browser sends.
    #[error("`{0}` is no origin: write it as `https://host` or `https://host:port`")]
    Origin(String),
}

impl ServerError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Nothing => "server::nothing",
            Self::Twice(_) => "server::twice",
            Self::NoCheckpointer => "server::no_checkpointer",
            Self::NoThreads => "server::no_threads",
            Self::NoAuthenticator => "server::no_authenticator",
            Self::Origin(_) => "server::origin",
        }
    }
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot be put together.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The address cannot be listened on, or the listener failed.
    #[error("the server has no socket ({0}): check the address and that no other program has it, and start again")]
    Listener(#[from] io::Error),
    /// Without keys, whoever reaches the address is served.
    #[error(
        "without keys the server listens on this machine alone, not on {0}: use 127.0.0.1, or an authenticator with keys"
    )]
    NotLoopback(SocketAddr),
}

impl ServeError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Server(error) => error.code(),
            Self::Listener(_) => "server::listener",
            Self::NotLoopback(_) => "server::not_loopback",
        }
    }
}

/// Collects what a [`Server`] is made of.
#[derive(Default)]
#[must_use = "call `build` to get the server"]
pub struct ServerBuilder {
    backend: Option<Backend>,
    settings: HttpSettings,
    graphs: Vec<Registration>,
    checkpointer: Option<Arc<dyn Checkpointer>>,
    threads: Option<Arc<dyn Threads>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    origins: Vec<String>,
    merged: Vec<Router>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("graphs", &self.graphs)
            .field("backend", &self.backend)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Serves a graph by its name, as threads and runs: a [`Graph`](stepgraph::Graph) whose events become JSON as it is,
    /// any other, and one with schemas or dependencies, as a [`Serve`](crate::Serve).
    pub fn graph(mut self, graph: impl Into<Registration>) -> Self {
        self.graphs.push(graph.into());
        self
    }

    /// Keeps the checkpoints of all graphs here.
    pub fn checkpointer(self, store: impl Checkpointer) -> Self {
        self.shared_checkpointer(Arc::new(store))
    }

    /// The same with a store that others use as well.
    pub fn shared_checkpointer(mut self, store: Arc<dyn Checkpointer>) -> Self {
        self.checkpointer = Some(store);
        self
    }

    /// Keeps the records of threads here: their metadata and which graph runs on them.
    pub fn threads(self, threads: impl Threads) -> Self {
        self.shared_threads(Arc::new(threads))
    }

    /// The same with records that others use as well.
    pub fn shared_threads(mut self, threads: Arc<dyn Threads>) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Finds out here which tenant a call is for. With a product, its clients' public keys do unless this is given.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets pages of this origin call the graphs from a browser: `https://studio.example`.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Serves routes of your own beside the graphs. They get the ids, log lines and error pages of the others, and no
    /// authentication.
    ///
    /// # Panics
    /// [`build`](Self::build) does, as axum does, if two routes have the same path.
    pub fn merge(mut self, routes: Router) -> Self {
        self.merged.push(routes);
        self
    }

    /// Serves the widget's interface: chat, documents, health. Its clients are remembered for seconds, so that a change in
    /// the records acts a moment later.
    pub fn product(mut self, mut backend: Backend) -> Self {
        backend.clients = Arc::new(CachedClients::new(backend.clients));
        self.backend = Some(backend);
        self
    }

    /// Replaces the default settings.
    pub fn settings(mut self, settings: HttpSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The server. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`]: what is missing, and what to add.
    pub fn build(self) -> Result<Server, ServerError> {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        if self.backend.is_none() && self.graphs.is_empty() && self.merged.is_empty() {
            return Err(ServerError::Nothing);
        }
        let authenticator = self.authenticator.or_else(|| {
            let backend = self.backend.as_ref()?;
            Some(Arc::new(ClientKeys {
                clients: Arc::clone(&backend.clients),
                dashboards: Domains::new(&self.settings.dashboard_hosts),
            }) as Arc<dyn Authenticator>)
        });
        let drain_limit = self.settings.drain_limit;
        let serving = if self.graphs.is_empty() {
            None
        } else {
            let store = self.checkpointer.ok_or(ServerError::NoCheckpointer)?;
            let threads = self.threads.ok_or(ServerError::NoThreads)?;
            let authenticator = authenticator.ok_or(ServerError::NoAuthenticator)?;
            let graphs = registered(self.graphs, &store)?;
            let (tracker, stop) = (tracker.clone(), stop.clone());
            Some(Arc::new(Serving::new(graphs, threads, authenticator, tracker, stop)))
        };
        let app = self.backend.map(|backend| {
            let (tracker, stop) = (tracker.clone(), stop.clone());
            Arc::new(App::new(backend, self.settings, tracker, stop))
        });
        let origins = self.origins.into_iter().map(origin).collect::<Result<_, _>>()?;
        Ok(Server {
            rooms: Arc::new(Rooms {
                app,
                serving,
                origins,
                merged: self.merged,
            }),
            tracker,
            stop,
            drain_limit,
        })
    }

    /// Serves an address until Ctrl-C or a polite kill, then lets open answers end.
    ///
    /// # Errors
    /// What is missing, or why the address cannot be listened on.
    pub async fn serve(self, address: impl ToSocketAddrs) -> Result<(), ServeError> {
        let server = self.build()?;
        let listener = TcpListener::bind(address).await?;
        server.serve(listener, asked_to_stop()?).await
    }
}

fn registered(
    graphs: Vec<Registration>,
    store: &Arc<dyn Checkpointer>,
) -> Result<Vec<Arc<dyn crate::serving::ServedGraph>>, ServerError> {
    let mut served: Vec<Arc<dyn crate::serving::ServedGraph>> = Vec::with_capacity(graphs.len());
    for graph in graphs {
        if served.iter().any(|known| known.name() == graph.name()) {
            return Err(ServerError::Twice(graph.name().to_owned()));
        }
        served.push(graph.over(Arc::clone(store)));
    }
    Ok(served)
}

fn origin(text: String) -> Result<HeaderValue, ServerError> {
    let uri = text.parse::<axum::http::Uri>().ok();
    let is_origin = uri.is_some_and(|uri| uri.scheme().is_some() && uri.host().is_some() && uri.path() == "/");
    match HeaderValue::try_from(&text) {
        Ok(value) if is_origin && !text.ends_with('/') => Ok(value),
        _ => Err(ServerError::Origin(text)),
    }
}

/// Resolves at the first signal that asks the process to stop.
#[cfg(unix)]
fn asked_to_stop() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at the first signal that asks the process to stop.
#[cfg(not(unix))]
fn asked_to_stop() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

impl Server {
    /// Begins with nothing and the default settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Every route, usable without a socket. Documents are ingested, and runs of an earlier process gone on with, only
    /// while [`Server::start_workers`] is in force.
    pub fn router(&self) -> Router {
        route::router(&self.rooms)
    }

    /// Begins to work on jobs, and finishes what an earlier process has left behind. [`Server::serve`] calls it.
    pub fn start_workers(&self) {
        if let Some(serving) = &self.rooms.serving {
            self.tracker.spawn(Arc::clone(serving).recover());
        }
        if let Some(app) = &self.rooms.app {
            self.start_product(app);
        }
    }

    fn start_product(&self, app: &Arc<App>) {
        let app = Arc::clone(app);
        let other = Arc::clone(&app);
        let expiry = Expiry {
            clients: Arc::clone(&app.backend.clients),
            log: Arc::clone(&app.backend.log),
            named: Arc::clone(&app.backend.named),
            days: app.settings.retention_days,
        };
        self.tracker.spawn(expiry.daily(app.stop.clone()));
        let courier = Courier {
            alerts: Arc::clone(&app.backend.alerts),
            guard: Guard::new(&app.settings.callback_hosts),
        };
        self.tracker.spawn(courier.work(app.stop.clone()));
        self.tracker.spawn(async move {
            if let Err(error) = app.ingestions.sweep(&*app.backend.dispatch).await {
                tracing::error!(%error, "documents of an earlier process could not all be queued again");
            }
            let handler: Arc<dyn JobHandler> = Arc::clone(&app.ingestions) as Arc<dyn JobHandler>;
            let concurrency = app.settings.ingest_concurrency;
            if let Err(error) = app.backend.dispatch.serve(handler, concurrency, app.stop.clone()).await {
                tracing::error!(%error, "the job queue ended");
            }
        });
        self.tracker.spawn(async move {
            if let Err(error) = other.backend.chat.finish_unfinished(other.stop.clone()).await {
                tracing::error!(%error, "runs of an earlier process could not be finished");
            }
        });
    }

    /// Stops taking jobs and waits until open runs and jobs have ended, within the drain limit of the settings. What
    /// has not ended then is taken up by the next process.
    pub async fn drain(&self) {
        self.stop.cancel();
        self.tracker.close();
        let limit = self.drain_limit;
        let ended = async {
            self.tracker.wait().await;
            if let Some(app) = &self.rooms.app {
                app.ingestions.close().await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(
                ?limit,
                "not all work ended within the limit: the next start goes on with it"
            );
        }
    }

    /// Serves until `shutdown`, then lets open answers end and drains.
    ///
    /// # Errors
    /// When the listener fails, or is one that the authenticator does not allow.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        self.allow(listener.local_addr()?)?;
        self.start_workers();
        let stop = self.stop.clone();
        let told = async move {
            shutdown.await;
            stop.cancel();
        };
        // A piece of an answer is smaller than a packet, and must not wait for one to fill.
        let listener = listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps small packets back");
            }
        });
        // Made ready once; left to axum, every connection would build a table of all routes for itself, 18 kB of it.
        let service = self.router().with_state::<()>(()).into_make_service();
        let serving = axum::serve(listener, service).with_graceful_shutdown(told);
        let limit = {
            let stop = self.stop.clone();
            let limit = self.drain_limit;
            async move {
                stop.cancelled().await;
                tokio::time::sleep(limit).await;
            }
        };
        let served = tokio::select! {
            served = serving.into_future() => served,
            () = limit => {
                tracing::warn!("some readers were still open at the limit and are cut off");
                Ok(())
            }
        };
        self.drain().await;
        Ok(served?)
    }

    /// Refuses an address that others can reach, where callers are not asked who they are.
    fn allow(&self, address: SocketAddr) -> Result<(), ServeError> {
        let serving = self.rooms.serving.as_ref();
        let here_only = serving.is_some_and(|serving| serving.authenticator.loopback_only());
        if here_only && !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        Ok(())
    }
}
