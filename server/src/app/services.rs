//! Which implementation stands behind each service: the one place where the settings decide it.

use std::sync::Arc;

use sqlx::SqlitePool;
use stepgraph_nodes::service::{
    Cache, CachedEmbedder, CachedVectors, Embedder, FallbackCache, ModelName, Records, Secret, VectorStore,
    embedded::{MokaCache, SqliteRecords, SqliteVectors},
    postgres::{ClientWrites, PostgresRecords, PostgresRecordsOptions},
    qdrant::{QdrantOptions, QdrantVectors},
    redis::RedisCache,
};

use super::{AppError, DataFolder, open_database};
use crate::config::{QdrantSettings, Settings};

/// Clients, documents, the chat log and all else that outlives a run.
pub(super) async fn records(settings: &Settings, database: &SqlitePool) -> Result<Records, AppError> {
    match &settings.database {
        Some(url) => Ok(Records::of(shared(url, settings.client_writes).await?)),
        None => Ok(Records::of(SqliteRecords::open(database.clone()).await?)),
    }
}

/// The same without anything else of an installation: of the shared database, or of a data folder that is there.
///
/// # Errors
/// As for an installation.
pub async fn open_records(settings: &Settings) -> Result<Records, AppError> {
    if let Some(url) = &settings.database {
        return Ok(Records::of(shared(url, settings.client_writes).await?));
    }
    let folder = DataFolder::look(&settings.data)?;
    records(settings, &open_database(&folder.records()).await?).await
}

/// The shared database; what its tables lack is told to whoever starts the program.
async fn shared(url: &Secret, client_writes: ClientWrites) -> Result<PostgresRecords, AppError> {
    let mut options = PostgresRecordsOptions::default();
    options.client_writes = client_writes;
    let store = PostgresRecords::open(url, options).await?;
    for gap in store.gaps() {
        tracing::warn!("the shared database: {gap}");
    }
    Ok(store)
}

/// Chunks and their search; what was found is kept for a while.
pub(super) async fn vectors(
    settings: &Settings,
    folder: &DataFolder,
    cache: &Arc<dyn Cache>,
) -> Result<Arc<dyn VectorStore>, AppError> {
    let vectors: Arc<dyn VectorStore> = if let Some(server) = &settings.qdrant {
        Arc::new(QdrantVectors::open(qdrant_options(settings, server)).await?)
    } else {
        let store = SqliteVectors::open(folder.vectors()).await?;
        store.check(embedding(settings).as_ref()).await?;
        Arc::new(store)
    };
    Ok(Arc::new(CachedVectors::new(vectors, Arc::clone(cache))))
}

/// The server of chunks, and what they are embedded with.
#[must_use]
pub fn qdrant_options(settings: &Settings, server: &QdrantSettings) -> QdrantOptions {
    QdrantOptions {
        url: server.url.clone(),
        api_key: server.key.clone(),
        collection: server.collection.clone(),
        embedding: embedding(settings),
    }
}

/// What chunks are embedded with.
#[must_use]
pub fn embedding(settings: &Settings) -> Option<(ModelName, u32)> {
    let embedding = settings.embedding.as_ref();
    embedding.map(|embedding| (embedding.model.clone(), embedding.dimension))
}

/// The embedding model for all documents at once: nothing of theirs is kept in a cache.
///
/// # Errors
/// The provider's settings cannot be used.
pub fn document_embedder(settings: &Settings) -> Result<Option<Arc<dyn Embedder>>, AppError> {
    super::models::embedder(settings)
}

/// The embedding model, where one is configured; the vectors of questions are kept for a while.
pub(super) fn embedder(settings: &Settings, cache: &Arc<dyn Cache>) -> Result<Option<Arc<dyn Embedder>>, AppError> {
    let embedder = super::models::embedder(settings)?;
    Ok(embedder.map(|embedder| Arc::new(CachedEmbedder::new(embedder, Arc::clone(cache))) as _))
}

/// Short-lived values and counters. A Redis need not be there yet: it is used when it comes.
///
/// # Errors
/// The address of the Redis cannot be used.
pub fn caches(settings: &Settings) -> Result<Arc<dyn Cache>, AppError> {
    Ok(match &settings.redis {
        Some(address) => Arc::new(FallbackCache::new(Arc::new(RedisCache::new(address)?))),
        None => Arc::new(MokaCache::new()),
    })
}
