//! The server put together: as a router for a host program or a test, or serving a socket until it is told to stop.

use std::{fmt, future::Future, io, sync::Arc};

use axum::Router;
use tokio::net::TcpListener;

use crate::{
    backend::{Backend, HttpSettings},
    jobs::JobHandler,
    route,
    state::App,
};

/// The HTTP server.
///
/// ```no_run
/// # async fn example(backend: stepgraph_server::Backend) -> std::io::Result<()> {
/// let server = stepgraph_server::Server::builder(backend).build();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// server.serve(listener, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await
/// # }
/// ```
#[derive(Clone)]
pub struct Server {
    app: Arc<App>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("backend", &self.app.backend)
            .field("settings", &self.app.settings)
            .finish()
    }
}

/// Collects what a [`Server`] is made of.
#[derive(Debug)]
#[must_use = "call `build` to get the server"]
pub struct ServerBuilder {
    backend: Backend,
    settings: HttpSettings,
}

impl ServerBuilder {
    /// Replaces the default settings.
    pub fn settings(mut self, settings: HttpSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The server. Must be called inside a tokio runtime.
    #[must_use]
    pub fn build(self) -> Server {
        Server {
            app: Arc::new(App::new(self.backend, self.settings)),
        }
    }
}

impl Server {
    /// Begins with what the server stands on and the default settings.
    pub fn builder(backend: Backend) -> ServerBuilder {
        ServerBuilder {
            backend,
            settings: HttpSettings::default(),
        }
    }

    /// Every route, usable without a socket. Documents are ingested only while [`Server::start_workers`] is in force.
    pub fn router(&self) -> Router {
        route::router(Arc::clone(&self.app))
    }

    /// Begins to work on jobs, and finishes what an earlier process has left behind. [`Server::serve`] calls it.
    pub fn start_workers(&self) {
        let app = Arc::clone(&self.app);
        self.app.tracker.spawn(async move {
            if let Err(error) = app.ingestions.sweep(&*app.backend.dispatch).await {
                tracing::error!(%error, "documents of an earlier process could not all be queued again");
            }
            let handler: Arc<dyn JobHandler> = Arc::clone(&app.ingestions) as Arc<dyn JobHandler>;
            let concurrency = app.settings.ingest_concurrency;
            if let Err(error) = app.backend.dispatch.serve(handler, concurrency, app.stop.clone()).await {
                tracing::error!(%error, "the job queue ended");
            }
        });
        let app = Arc::clone(&self.app);
        self.app.tracker.spawn(async move {
            if let Err(error) = app.backend.chat.finish_unfinished(app.stop.clone()).await {
                tracing::error!(%error, "runs of an earlier process could not be finished");
            }
        });
    }

    /// Stops taking jobs and waits until open runs and jobs have ended, within the drain limit of the settings. What
    /// has not ended then is taken up by the next process.
    pub async fn drain(&self) {
        self.app.stop.cancel();
        self.app.tracker.close();
        let limit = self.app.settings.drain_limit;
        let ended = async {
            self.app.tracker.wait().await;
            self.app.ingestions.close().await;
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
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        self.start_workers();
        let stop = self.app.stop.clone();
        let told = async move {
            shutdown.await;
            stop.cancel();
        };
        let serving = axum::serve(listener, self.router()).with_graceful_shutdown(told);
        let limit = {
            let stop = self.app.stop.clone();
            let limit = self.app.settings.drain_limit;
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
        served
    }
}
