//! What every handler shares.

use std::{sync::Arc, time::Duration};

use stepgraph_nodes::domains::Domains;
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backend::{Backend, HttpSettings},
    jobs::Ingestions,
    limit::Limiter,
    route::health::HealthCheck,
    runs::Runs,
};

/// The version that `/health` and `/` tell.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The server's parts, made once.
pub(crate) struct App {
    pub(crate) backend: Backend,
    pub(crate) settings: HttpSettings,
    pub(crate) runs: Runs,
    pub(crate) limiter: Limiter,
    pub(crate) ingestions: Arc<Ingestions>,
    pub(crate) health: HealthCheck,
    /// Hosts of the pages from which the free tier may be used; empty for all.
    pub(crate) dashboards: Domains,
    /// Held while a document is counted and accepted, so that two uploads at once cannot both be the last one allowed.
    pub(crate) accepting: Mutex<()>,
    /// Owns the chat runs and the workers.
    pub(crate) tracker: TaskTracker,
    /// Ends the workers.
    pub(crate) stop: CancellationToken,
}

impl App {
    pub(crate) fn new(backend: Backend, settings: HttpSettings, tracker: TaskTracker, stop: CancellationToken) -> Self {
        let ingestions = Ingestions::new(&backend, &settings);
        Self {
            runs: Runs::new(Arc::clone(&backend.chat), tracker.clone(), Arc::clone(&backend.metrics)),
            limiter: Limiter::new(&backend, &settings),
            health: HealthCheck::default(),
            ingestions: Arc::new(ingestions),
            dashboards: Domains::new(&settings.dashboard_hosts),
            accepting: Mutex::default(),
            stop,
            backend,
            settings,
            tracker,
        }
    }

    /// How long after the first token's absence a stream begins all the same.
    pub(crate) const START_AFTER: Duration = Duration::from_millis(800);
    /// How often a quiet stream says that it lives.
    pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
}
