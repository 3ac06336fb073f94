//! The graphs over an installation's services, and all of it as the server needs it.

use std::{fmt, sync::Arc, time::Duration};

use stepgraph::{Checkpointer, TenantId};
use stepgraph_graphs::{document_ingest, widget_chat};
use stepgraph_nodes::{
    Services, chunk,
    service::{Cache, CacheState},
};

use super::{AppError, GraphChat, GraphIngest, Installation, checkpoints};
use crate::{
    backend::{Backend, HttpSettings},
    builder::{Server, ServerBuilder},
    config::Settings,
    jobs::SqliteDispatch,
    limit::Limiter,
};

/// How long a start waits for a shared cache, and how often it is asked meanwhile.
const CACHE_WAIT: Duration = Duration::from_secs(3);
const CACHE_TRIED_EVERY: Duration = Duration::from_millis(1_100);

/// The two graphs, ready to run.
#[derive(Clone)]
pub struct Graphs {
    /// Answers chat messages.
    pub chat: GraphChat,
    /// Ingests documents.
    pub ingest: GraphIngest,
    checkpoints: Arc<dyn Checkpointer>,
}

impl fmt::Debug for Graphs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graphs")
            .field("chat", &self.chat)
            .field("ingest", &self.ingest)
            .finish_non_exhaustive()
    }
}

impl Graphs {
    /// Builds them over the installation's services and checkpoints.
    ///
    /// # Errors
    /// The checkpoints cannot be opened.
    pub async fn open(installation: &Installation) -> Result<Self, AppError> {
        let checkpoints = checkpoints::open(installation).await?.store;
        let services = services(installation);
        let chat = widget_chat(&services)?.shared_checkpointer(Arc::clone(&checkpoints));
        let ingest = document_ingest(&services)?.shared_checkpointer(Arc::clone(&checkpoints));
        let clients = Arc::clone(&installation.records.clients);
        let documents = Arc::clone(&installation.records.documents);
        let owners = Arc::clone(&clients);
        Ok(Self {
            chat: GraphChat::new(chat, Arc::clone(&installation.models), clients),
            ingest: GraphIngest::new(ingest, documents, owners),
            checkpoints,
        })
    }

    /// Removes all threads of a tenant, whichever graph they are of.
    ///
    /// # Errors
    /// The store does not answer, or cannot do it.
    pub async fn erase_threads(&self, tenant: &TenantId) -> Result<(), AppError> {
        Ok(self.checkpoints.erase(tenant).await?)
    }

    /// What the widget's interface stands on.
    ///
    /// # Errors
    /// The job queue cannot be opened.
    pub async fn backend(&self, installation: &Installation) -> Result<Backend, AppError> {
        tokio::join!(connected(&*installation.cache), tokens_known());
        Ok(Backend {
            embedder: installation.embedder.clone(),
            clients: Arc::clone(&installation.records.clients),
            documents: Arc::clone(&installation.records.documents),
            log: Arc::clone(&installation.records.log),
            alerts: Arc::clone(&installation.records.alerts),
            feedbacks: Arc::clone(&installation.records.feedbacks),
            named: Arc::clone(&installation.records.named),
            vectors: Arc::clone(&installation.vectors),
            cache: Arc::clone(&installation.cache),
            models: installation.models.in_use(),
            chat: Arc::new(self.chat.clone()),
            ingest: Arc::new(self.ingest.clone()),
            dispatch: Arc::new(SqliteDispatch::open(installation.database.clone()).await?),
            metrics: Arc::default(),
        })
    }

    /// The product: the widget's interface over `backend`, and both graphs as threads and runs.
    pub fn server(&self, installation: &Installation, backend: Backend, settings: HttpSettings) -> ServerBuilder {
        let limiter = Limiter::new(&backend, &settings);
        Server::builder()
            .graph(self.chat.served(limiter, settings.answer_budget))
            .graph(self.ingest.served())
            .shared_checkpointer(Arc::clone(&self.checkpoints))
            .shared_threads(Arc::clone(&installation.records.threads))
            .product(backend)
            .settings(settings)
    }
}

/// Waits a little for a shared cache: a message that comes before its connection stands would be counted in this process
/// alone.
async fn connected(cache: &dyn Cache) {
    let answers = async {
        while cache.state().await == CacheState::Away {
            tokio::time::sleep(CACHE_TRIED_EVERY).await;
        }
    };
    if tokio::time::timeout(CACHE_WAIT, answers).await.is_err() {
        tracing::warn!(limit = ?CACHE_WAIT, "the shared cache does not answer yet: it is used when it does");
    }
}

/// Loads the table of tokens, which takes the processor a third of a second: not while the first messages wait.
async fn tokens_known() {
    if tokio::task::spawn_blocking(|| chunk::tokens("")).await.is_err() {
        tracing::error!("the table of tokens cannot be read");
    }
}

fn services(installation: &Installation) -> Services {
    Services {
        vectors: Arc::clone(&installation.vectors),
        embedder: installation.embedder.clone(),
        documents: Arc::clone(&installation.records.documents),
        log: Arc::clone(&installation.records.log),
        pdf: installation.pdf.clone(),
    }
}

/// The server's own part of the settings.
#[must_use]
pub fn http_settings(settings: &Settings) -> HttpSettings {
    HttpSettings {
        internal_secret: settings.internal_secret.clone(),
        free_model: settings.free_model.clone(),
        paid_model: settings.paid_model.clone(),
        progress_callback: settings.progress_callback.clone(),
        callback_hosts: settings.callback_hosts.clone(),
        dashboard_hosts: settings.dashboard_hosts.clone(),
        upgrade_url: settings.upgrade_url.clone(),
        retention_days: settings.retention_days,
        ..HttpSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::Graphs;
    use crate::{
        app::{DataFolder, Installation},
        config::{Flags, Settings},
    };

    /// The graphs need real services, which is why this stands here and not beside the drawings.
    #[tokio::test]
    async fn the_checked_in_drawings_are_those_of_the_graphs() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataFolder::hold(folder.path(), "test").unwrap();
        let installation = Installation::open(held, &Settings::load(&Flags::default(), []).unwrap())
            .await
            .unwrap();
        let graphs = Graphs::open(&installation).await.unwrap();

        let drawn = [graphs.chat.drawing(), graphs.ingest.drawing()];

        for (shipped, drawn) in stepgraph_graphs::SHIPPED.iter().zip(drawn) {
            let path = format!("{}/../graphs/drawings/{}.mmd", env!("CARGO_MANIFEST_DIR"), shipped.name);
            if std::env::var_os("UPDATE_DRAWINGS").is_some() {
                std::fs::write(path, drawn).unwrap();
            } else {
                assert_eq!(
                    shipped.drawing, drawn,
                    "write it anew with UPDATE_DRAWINGS=1 cargo test -p stepgraph-server drawings"
                );
            }
        }
    }
}
