//! Where the threads of an installation are kept.

use std::sync::Arc;

use sqlx::SqlitePool;
use stepgraph::{CheckpointError, Checkpointer, checkpoint::StoreDurability};
use stepgraph_checkpoint::{Postgres, PostgresOptions, Redis, Sqlite};

use super::AppError;
use crate::config::CheckpointServer;

/// Enough for the runs that one process has in flight: each holds one only while it commits or reads.
const CONNECTIONS_MAX: u32 = 16;

/// Opens the server that the settings name, else the tables in the data folder's own database.
pub(super) async fn open(
    server: Option<&CheckpointServer>,
    database: &SqlitePool,
) -> Result<Arc<dyn Checkpointer>, AppError> {
    let store: Arc<dyn Checkpointer> = match server {
        None => Arc::new(Sqlite::new(database.clone()).await?),
        Some(CheckpointServer::Postgres(address)) => {
            let options = PostgresOptions::default().connections_max(CONNECTIONS_MAX);
            Arc::new(Postgres::open_with(address.expose(), options).await?)
        }
        Some(CheckpointServer::Redis(address)) => Arc::new(Redis::open(address.expose()).await?),
    };
    // Every run would be refused, one after the other: better none is accepted.
    if store.durability() == StoreDurability::Process {
        return Err(CheckpointError::Unavailable {
            message: "a crash of the server that STEPGRAPH_CHECKPOINTS_URL names may lose what it has just kept: set \
                      `synchronous_commit` on in PostgreSQL, `appendonly yes` and `appendfsync always` in Redis"
                .to_owned(),
            source: None,
        }
        .into());
    }
    Ok(store)
}
