//! Everything that keeps or answers, opened on one data folder.

use std::sync::Arc;

use sqlx::SqlitePool;
use stepgraph_checkpoint::seal::MasterKeys;
use stepgraph_nodes::{
    parse::{ParseLimits, PdfWorker},
    service::{Cache, Embedder, ModelName, Records, VectorStore},
};

use super::{AppError, DataFolder, Models, open_database, services};
use crate::config::{CheckpointServer, Settings};

/// The services on one data folder. The folder stays held while they live.
#[derive(Clone)]
pub struct Installation {
    /// The folder they keep their data in.
    pub folder: Arc<DataFolder>,
    /// The database of jobs, and of records and checkpoints unless the settings name other stores for them.
    pub database: SqlitePool,
    /// Which server keeps threads, if not the database.
    pub checkpoint_server: Option<CheckpointServer>,
    /// What threads are sealed with, if they are.
    pub checkpoints_key: Option<MasterKeys>,
    /// Clients, documents, the chat log and all else that outlives a run.
    pub records: Records,
    /// Chunks and their search.
    pub vectors: Arc<dyn VectorStore>,
    /// Short-lived values.
    pub cache: Arc<dyn Cache>,
    /// The chat models.
    pub models: Arc<Models>,
    /// The embedding model, where one is configured.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// Reads PDFs in a process of its own.
    pub pdf: PdfWorker,
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installation")
            .field("folder", &self.folder)
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}

impl Installation {
    /// Opens all of them.
    ///
    /// # Errors
    /// A database cannot be opened or is of another version, or a provider's settings cannot be used.
    pub async fn open(folder: DataFolder, settings: &Settings) -> Result<Self, AppError> {
        let database = open_database(&folder.records()).await?;
        let cache = services::caches(settings)?;
        Ok(Self {
            checkpoint_server: settings.checkpoints.clone(),
            checkpoints_key: settings.checkpoints_key.clone(),
            records: services::records(settings, &database).await?,
            vectors: services::vectors(settings, &folder, &cache).await?,
            models: Arc::new(Models::new(settings)?),
            embedder: services::embedder(settings, &cache)?,
            cache,
            pdf: pdf_worker()?,
            folder: Arc::new(folder),
            database,
        })
    }

    /// What a knowledge base begun now stores as its embedding.
    #[must_use]
    pub fn embedding(&self) -> Option<(ModelName, u32)> {
        self.embedder
            .as_ref()
            .map(|embedder| (embedder.model().clone(), embedder.dimension()))
    }
}

/// Workers that are runs of this program.
///
/// # Errors
/// The system does not say where this program lies.
pub fn pdf_worker() -> Result<PdfWorker, AppError> {
    PdfWorker::own_program(ParseLimits::default()).map_err(|source| AppError::Program { source })
}
