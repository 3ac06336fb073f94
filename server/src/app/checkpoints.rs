//! Where the threads of an installation are kept.

use std::sync::Arc;

use stepgraph::{CheckpointError, Checkpointer, checkpoint::StoreDurability};
use stepgraph_checkpoint::{Postgres, PostgresOptions, Redis, Sealed, Sqlite, seal::MasterKeys};

use super::{AppError, Installation};
use crate::config::CheckpointServer;

/// Enough for the runs that one process has in flight: each holds one only while it commits or reads.
const CONNECTIONS_MAX: u32 = 16;

/// Opens the server that the settings name, else the tables in the data folder's own database; sealed, if they name a key.
pub(super) async fn open(installation: &Installation) -> Result<Arc<dyn Checkpointer>, AppError> {
    let keys = installation.checkpoints_key.as_ref();
    let store = match installation.checkpoint_server.as_ref() {
        None => kept(Sqlite::new(installation.database.clone()).await?, keys),
        Some(CheckpointServer::Postgres(address)) => {
            let options = PostgresOptions::default().connections_max(CONNECTIONS_MAX);
            kept(Postgres::open_with(address.expose(), options).await?, keys)
        }
        Some(CheckpointServer::Redis(address)) => kept(Redis::open(address.expose()).await?, keys),
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

fn kept(store: impl Checkpointer, keys: Option<&MasterKeys>) -> Arc<dyn Checkpointer> {
    match keys {
        None => Arc::new(store),
        Some(keys) => Arc::new(Sealed::new(store, keys.clone())),
    }
}
