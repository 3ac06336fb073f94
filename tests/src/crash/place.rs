//! Where threads are kept: a store that outlives a process, and how a process opens it.

use std::{path::Path, sync::Arc};

use stepgraph::{CheckpointError, Checkpointer, Durability};
use stepgraph_checkpoint::{Postgres, PostgresOptions, Redis, Sqlite};
use stepgraph_live::{Fsync, Postgres as PostgresServer, Redis as RedisServer};

use crate::TestError;

/// A store that outlives a process. The one in memory does not, and so has no row in the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A file.
    Sqlite,
    /// A private PostgreSQL.
    Postgres,
    /// A private Redis that waits for the disk.
    Redis,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres, Self::Redis];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// The place of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.name() == name)
    }
}

/// The servers of the places that need one, for as long as the matrix lasts.
#[derive(Debug, Default)]
pub struct Servers {
    redis: Option<RedisServer>,
}

impl Servers {
    /// The address of a place, its server started if it needs one.
    ///
    /// # Errors
    /// That there is no server to start, and what to type.
    pub async fn address(&mut self, place: Place, folder: &Path) -> Result<String, TestError> {
        Ok(match place {
            Place::Sqlite => folder.join("threads.db").display().to_string(),
            Place::Postgres => PostgresServer::shared()?.database().await?,
            Place::Redis => {
                let server = match self.redis.take() {
                    Some(server) => server,
                    None => RedisServer::start(Fsync::Always)?,
                };
                self.redis.insert(server).url()
            }
        })
    }
}

pub(super) async fn open(place: Place, address: &str) -> Result<Arc<dyn Checkpointer>, CheckpointError> {
    Ok(match place {
        Place::Sqlite => Arc::new(Sqlite::open(address).await?),
        Place::Postgres => {
            let options = PostgresOptions::default().connections_max(2);
            Arc::new(Postgres::open_with(address, options).await?)
        }
        Place::Redis => Arc::new(Redis::open(address).await?),
    })
}

pub(super) const DURABILITIES: [(&str, Durability); 3] = [
    ("sync", Durability::Sync),
    ("async", Durability::Async),
    ("exit", Durability::Exit),
];
