//! Checkpoints in one SQLite file.

mod barrier;
mod failure;
mod group;
mod options;
mod read;
mod thin;
mod values;
mod write;
mod writer;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqlitePoolOptions},
};
use stepgraph::{
    CheckpointError, Checkpointer, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, Seq, StoreDurability, Tag, Thinning,
    },
};
use uuid::Uuid;

pub use self::options::SqliteOptions;
use self::{barrier::Barrier, writer::Writer};
use crate::{
    Durability,
    value::{Keeping, LARGE_VALUE_BYTES, rows::KeptPayload},
};

/// Other parts of a program may keep tables and migrations of their own in the same file.
const MIGRATION_TABLE: &str = "checkpoint_migrations";

/// Keeps checkpoints in a SQLite file: one transaction per commit, in a queue of this process's own; reads run beside
/// it. Several processes may share the file.
///
/// ```
/// # use stepgraph_checkpoint::Sqlite;
/// # async fn open(folder: &std::path::Path) -> Result<(), stepgraph::CheckpointError> {
/// let store = Sqlite::open(folder.join("state/threads.db")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Sqlite {
    readers: SqlitePool,
    writer: Writer,
    durability: Durability,
    keeping: Keeping,
}

impl Sqlite {
    /// Opens the file, making it and its folders where they are missing. Each commit waits for the disk.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::open_with(path, SqliteOptions::default()).await
    }

    /// Opens the file with settings of your own.
    pub async fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                let message = format!(
                    "cannot make the folder {}: {error}; choose another path",
                    folder.display()
                );
                failure::unavailable(message, Some(Box::new(error)))
            })?;
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(options.readers())
            .test_before_acquire(false)
            .connect_lazy_with(options.connect(path));
        let store = Self::new(pool).await?;
        Ok(Self {
            keeping: keeping(options.values_from_bytes()),
            ..store
        })
    }

    /// Works on the file of a pool that others use too, and makes the tables. The pool gives the reads their
    /// connections; writes open one more with its settings. Refused if the file is not in WAL mode or nothing is
    /// promised about its durability.
    pub async fn new(pool: SqlitePool) -> Result<Self, CheckpointError> {
        let options = SqliteConnectOptions::clone(&pool.connect_options());
        let mut connection = connected(&options).await?;
        let durability = promised(&mut connection).await?;
        migrate(&mut connection).await?;
        Ok(Self {
            readers: pool,
            writer: Writer::new(options, connection),
            durability,
            keeping: keeping(LARGE_VALUE_BYTES),
        })
    }

    /// What a finished commit survives.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.durability
    }
}

const fn keeping(from: usize) -> Keeping {
    Keeping {
        from,
        packed_from: from,
    }
}

/// Connects to a file that others may be opening too. Switching a new one to WAL needs it alone, and SQLite does not wait for
/// that, whatever its `busy_timeout`.
async fn connected(options: &SqliteConnectOptions) -> Result<SqliteConnection, CheckpointError> {
    const ATTEMPTS_MAX: u32 = 100;
    const WAIT: Duration = Duration::from_millis(20);
    for _ in 1..ATTEMPTS_MAX {
        match options.connect().await {
            Err(error) if failure::is_busy(&error) => tokio::time::sleep(WAIT).await,
            connected => return connected.map_err(failure::anywhere),
        }
    }
    options.connect().await.map_err(failure::anywhere)
}

/// Looks at what a connection promises, and refuses what a store cannot be built on.
async fn promised(connection: &mut SqliteConnection) -> Result<Durability, CheckpointError> {
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut *connection)
        .await
        .map_err(failure::anywhere)?;
    if journal != "wal" {
        let message = format!("the pool's journal mode is `{journal}`: use a file, with `SqliteJournalMode::Wal`");
        return Err(failure::unavailable(message, None));
    }
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(connection)
        .await
        .map_err(failure::anywhere)?;
    options::from_pragma(synchronous).ok_or_else(|| {
        let message = "the pool's `synchronous` is OFF: use `SqliteSynchronous::Full` or `Normal`";
        failure::unavailable(message.to_owned(), None)
    })
}

/// Makes the tables, or brings them up to date. The lock is taken first: several processes may open a new file at once.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), CheckpointError> {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name(MIGRATION_TABLE);
    let mut turn = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(failure::anywhere)?;
    // `run` would take the connection too, but makes a future that the compiler cannot see to be `Send`.
    migrator
        .run_direct(None, &mut *turn, false)
        .await
        .map_err(failure::migration)?;
    turn.commit().await.map_err(failure::anywhere)
}

/// A statement with its values.
type Statement = Query<'static, sqlx::Sqlite, SqliteArguments>;

/// A statement whose first three values are the thread's full name, tenant first.
fn about(sql: &'static str, key: &ThreadKey) -> Statement {
    sqlx::query(sql)
        .bind(key.tenant.as_str().to_owned())
        .bind(key.thread.as_str().to_owned())
        .bind(key.namespace.as_str().to_owned())
}

#[async_trait]
impl Checkpointer for Sqlite {
    fn durability(&self) -> StoreDurability {
        match self.durability {
            Durability::Full => StoreDurability::Machine,
            Durability::Normal => StoreDurability::Process,
        }
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        let mut turn = self.writer.turn().await?;
        let epoch = write::claim(turn.connection(), key).await;
        turn.committed(epoch)
    }

    async fn begin(
        &self,
        key: &ThreadKey,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<(Epoch, Option<Seq>), CheckpointError> {
        if let (None, true, Some(new), Some(mark)) = (expected, Barrier::is(&commit), &commit.checkpoint, &commit.run) {
            let kept = KeptPayload::of(new.payload.bytes(), self.keeping);
            let barrier = Barrier::beginning(key, (new.clone(), kept), mark.clone());
            let begun = self.writer.commit(barrier).await?;
            if begun.1.is_some() {
                return Ok(begun);
            }
        }
        // The thread is there, or the commit says more than most.
        let epoch = self.claim(key).await?;
        let head = self.commit(key, epoch, expected, commit).await?;
        Ok((epoch, head))
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let is_barrier = Barrier::is(&commit);
        let commit = match commit {
            Commit {
                checkpoint: Some(new),
                run,
                ..
            } if is_barrier => {
                let kept = KeptPayload::of(new.payload.bytes(), self.keeping);
                let barrier = Barrier::new(key, epoch, expected, (new, kept), run);
                return self.writer.commit(barrier).await.map(|(_, head)| head);
            }
            other => other,
        };
        let new = commit.checkpoint.as_ref();
        let kept = new.map(|new| KeptPayload::of(new.payload.bytes(), self.keeping));
        let mut turn = self.writer.turn().await?;
        let written = write::commit(turn.connection(), key, (epoch, expected), commit, kept).await;
        turn.close(written).await
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        read::get(&self.readers, key, at).await
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        read::list(&self.readers, key, page).await
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        let mut turn = self.writer.turn().await?;
        let moved = write::branch(turn.connection(), key, epoch, from, name).await;
        turn.end(moved).await
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        read::branches(&self.readers, key).await
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        read::inner(&self.readers, key, after, limit).await
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        let mut turn = self.writer.turn().await?;
        let gone = write::delete(turn.connection(), key).await;
        turn.end(gone).await
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        read::unfinished(&self.readers, graph, limit).await
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        read::outbox(&self.readers, topic, limit).await
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        let mut turn = self.writer.turn().await?;
        let gone = write::acknowledge(turn.connection(), key, message).await;
        turn.end(gone).await
    }
    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        let mut turn = self.writer.turn().await?;
        let tagged = thin::tag(turn.connection(), key, name, at).await;
        turn.end(tagged).await
    }

    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        thin::tags(&self.readers, key).await
    }

    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        thin::threads(&self.readers, tenant, after, limit).await
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let thinning = thin::Cut::of(thinning, self.keeping);
        let mut turn = self.writer.turn().await?;
        let thinned = thin::thin(turn.connection(), key, thinning).await;
        turn.end(thinned).await
    }
}
