//! Where the threads of an installation are kept.

use std::sync::Arc;

use async_trait::async_trait;
use stepgraph::{CheckpointError, Checkpointer, TenantId, ThreadId, checkpoint::StoreDurability};
use stepgraph_checkpoint::{
    Postgres, PostgresOptions, Redis, Sealed, Sqlite,
    seal::{KeyError, Keys, MasterKeys, PostgresKeys, SealedAnew, SqliteKeys, TenantKeys},
};

use super::{AppError, Installation};
use crate::config::CheckpointServer;

/// Enough for the runs that one process has in flight: each holds one only while it commits or reads.
const CONNECTIONS_MAX: u32 = 16;

/// A store that can seal anew what it was given before there was a key, or with an older one.
#[async_trait]
pub trait SealAnew: Send + Sync {
    /// Does so for so many threads of a tenant behind one, and says which was the last: [`Sealed::seal_anew`].
    async fn seal_anew(
        &self,
        tenant: &TenantId,
        from: (Option<&ThreadId>, u32),
    ) -> Result<(SealedAnew, Option<ThreadId>), CheckpointError>;
}

#[async_trait]
impl<S: Checkpointer> SealAnew for Sealed<S> {
    async fn seal_anew(
        &self,
        tenant: &TenantId,
        from: (Option<&ThreadId>, u32),
    ) -> Result<(SealedAnew, Option<ThreadId>), CheckpointError> {
        Self::seal_anew(self, tenant, from).await
    }
}

/// An installation's threads.
pub(super) struct Kept {
    pub(super) store: Arc<dyn Checkpointer>,
    /// Where they are sealed.
    pub(super) anew: Option<Arc<dyn SealAnew>>,
}

/// The same store for who seals it anew; `None` without a key.
///
/// # Errors
/// The checkpoints cannot be opened.
pub async fn sealing(installation: &Installation) -> Result<Option<Arc<dyn SealAnew>>, AppError> {
    Ok(open(installation).await?.anew)
}

/// Opens the server that the settings name, else the tables in the data folder's own database; sealed, if they name a key.
/// Keys of tenants lie in a file beside the database, or in the PostgreSQL that keeps the threads.
pub(super) async fn open(installation: &Installation) -> Result<Kept, AppError> {
    let master = installation.checkpoints_key.as_ref();
    let kept = match installation.checkpoint_server.as_ref() {
        None => {
            let store = Sqlite::new(installation.database.clone()).await?;
            keep(store, in_folder(installation, master).await?)
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
            keep(store, keys)
        }
        Some(CheckpointServer::Redis(address)) => {
            let store = Redis::open(address.expose()).await?;
            keep(store, in_folder(installation, master).await?)
        }
    };
    // Every run would be refused, one after the other: better none is accepted.
    if kept.store.durability() == StoreDurability::Process {
        return Err(CheckpointError::Unavailable {
            message: "a crash of the server that STEPGRAPH_CHECKPOINTS_URL names may lose what it has just kept: set \
                      `synchronous_commit` on in PostgreSQL, `appendonly yes` and `appendfsync always` in Redis"
                .to_owned(),
            source: None,
        }
        .into());
    }
    Ok(kept)
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

fn keep(store: impl Checkpointer, keys: Option<Arc<dyn Keys>>) -> Kept {
    match keys {
        None => Kept {
            store: Arc::new(store),
            anew: None,
        },
        Some(keys) => {
            let sealed = Arc::new(Sealed::new(store, keys));
            let anew: Arc<dyn SealAnew> = Arc::clone(&sealed) as _;
            Kept {
                store: sealed,
                anew: Some(anew),
            }
        }
    }
}
