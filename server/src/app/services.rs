//! Which implementation stands behind each service: the one place where the settings decide it.

use std::sync::Arc;

use sqlx::SqlitePool;
use stepgraph_nodes::service::{
    Cache, CachedEmbedder, CachedVectors, Embedder, FallbackCache, Records, VectorStore,
    embedded::{MokaCache, SqliteRecords, SqliteVectors},
    qdrant::{QdrantOptions, QdrantVectors},
    redis::RedisCache,
};

use super::{AppError, DataFolder};
use crate::config::Settings;

/// Clients, documents, the chat log and all else that outlives a run.
pub(super) async fn records(_settings: &Settings, database: &SqlitePool) -> Result<Records, AppError> {
    Ok(Records::of(SqliteRecords::open(database.clone()).await?))
}

/// Chunks and their search; what was found is kept for a while.
pub(super) async fn vectors(
    settings: &Settings,
    folder: &DataFolder,
    cache: &Arc<dyn Cache>,
) -> Result<Arc<dyn VectorStore>, AppError> {
    let vectors: Arc<dyn VectorStore> = match &settings.qdrant {
        Some(server) => {
            let embedding = settings.embedding.as_ref();
            let options = QdrantOptions {
                url: server.url.clone(),
                api_key: server.key.clone(),
                collection: server.collection.clone(),
                embedding: embedding.map(|embedding| (embedding.model.clone(), embedding.dimension)),
            };
            Arc::new(QdrantVectors::open(options).await?)
        }
        None => Arc::new(SqliteVectors::open(folder.vectors()).await?),
    };
    Ok(Arc::new(CachedVectors::new(vectors, Arc::clone(cache))))
}

/// The embedding model, where one is configured; the vectors of questions are kept for a while.
pub(super) fn embedder(settings: &Settings, cache: &Arc<dyn Cache>) -> Result<Option<Arc<dyn Embedder>>, AppError> {
    let embedder = super::models::embedder(settings)?;
    Ok(embedder.map(|embedder| Arc::new(CachedEmbedder::new(embedder, Arc::clone(cache))) as _))
}

/// Short-lived values and counters. A Redis need not be there yet: it is used when it comes.
pub(super) fn cache(settings: &Settings) -> Result<Arc<dyn Cache>, AppError> {
    Ok(match &settings.redis {
        Some(address) => Arc::new(FallbackCache::new(Arc::new(RedisCache::new(address)?))),
        None => Arc::new(MokaCache::new()),
    })
}
