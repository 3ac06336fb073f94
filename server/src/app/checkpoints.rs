//! Where the threads of an installation are kept.

use std::sync::Arc;

use stepgraph::{CheckpointError, Checkpointer, checkpoint::StoreDurability};
use stepgraph_checkpoint::{
    Postgres, PostgresOptions, Redis, Sealed, Sqlite,
    seal::{KeyError, Keys, MasterKeys, PostgresKeys, SqliteKeys, TenantKeys},
};

use super::{AppError, Installation};
use crate::config::CheckpointServer;

/// Enough for the runs that one process has in flight: each holds one only while it commits or reads.
const CONNECTIONS_MAX: u32 = 16;

/// Opens the server that the settings name, else the tables in the data folder's own database; sealed, if they name a key.
/// Keys of tenants lie in a file beside the database, or in the PostgreSQL that keeps the threads.
pub(super) async fn open(installation: &Installation) -> Result<Arc<dyn Checkpointer>, AppError> {
    let master = installation.checkpoints_key.as_ref();
    let store = match installation.checkpoint_server.as_ref() {
        None => {
            let store = Sqlite::new(installation.database.clone()).await?;
            kept(store, in_folder(installation, master).await?)
        }
        Some(CheckpointServer::Postgres(address)) => {
            let options = PostgresOptions::default().connections_max(CONNECTIONS_MAX);
            let store = Postgres::open_with(address.expose(), options).await?;
            let keys: Option<Arc<dyn Keys>> = match master {
                None => None,
                Some(master) => {
                    let keys = PostgresKeys::open(address.expose()).await.map_err(unreadable)?;
                    Some(Arc::new(TenantKeys::new(master.clone(), keys)))
                }
            };
            kept(store, keys)
        }
        Some(CheckpointServer::Redis(address)) => {
            let store = Redis::open(address.expose()).await?;
            kept(store, in_folder(installation, master).await?)
        }
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

/// The keys of tenants in the data folder.
async fn in_folder(
    installation: &Installation,
    master: Option<&MasterKeys>,
) -> Result<Option<Arc<dyn Keys>>, AppError> {
    let Some(master) = master else { return Ok(None) };
    let keys = SqliteKeys::open(installation.folder.keys()).await.map_err(unreadable)?;
    Ok(Some(Arc::new(TenantKeys::new(master.clone(), keys))))
}

fn unreadable(error: KeyError) -> AppError {
    let message = error.to_string();
    CheckpointError::Unavailable {
        message,
        source: Some(Box::new(error)),
    }
    .into()
}

fn kept(store: impl Checkpointer, keys: Option<Arc<dyn Keys>>) -> Arc<dyn Checkpointer> {
    match keys {
        None => Arc::new(store),
        Some(keys) => Arc::new(Sealed::new(store, keys)),
    }
}
