//! Which implementation stands behind each service: the one place where the settings decide it.

use std::sync::Arc;

use sqlx::SqlitePool;
use stepgraph_nodes::service::{
    Cache, Records, VectorStore,
    embedded::{MokaCache, SqliteRecords, SqliteVectors},
};

use super::{AppError, DataFolder};
use crate::config::Settings;

/// Clients, documents, the chat log and all else that outlives a run.
pub(super) async fn records(_settings: &Settings, database: &SqlitePool) -> Result<Records, AppError> {
    Ok(Records::of(SqliteRecords::open(database.clone()).await?))
}

/// Chunks and their search.
pub(super) async fn vectors(_settings: &Settings, folder: &DataFolder) -> Result<Arc<dyn VectorStore>, AppError> {
    Ok(Arc::new(SqliteVectors::open(folder.vectors()).await?))
}

/// Short-lived values and counters.
#[expect(clippy::unused_async, reason = "a cache on a server is connected to")]
pub(super) async fn cache(_settings: &Settings) -> Result<Arc<dyn Cache>, AppError> {
    Ok(Arc::new(MokaCache::new()))
}
