//! Checkpoints in PostgreSQL.

mod failure;
mod group;
mod options;
mod read;
mod shared;
mod text;
mod thinning;
mod write;

use std::str::FromStr as _;

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Postgres as Driver,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions},
    query::Query,
};
use stepgraph::{
    CheckpointError, Checkpointer, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, Seq, StoreDurability, Tag, Thinning,
    },
};
use uuid::Uuid;

use self::group::{Lines, Told};
pub use self::options::PostgresOptions;
use crate::{
    Durability, LARGE_VALUE_BYTES,
    value::{Keeping, rows::KeptPayload},
};

/// Other parts of a program may keep tables and migrations of their own in the same database.
const MIGRATION_TABLE: &str = "checkpoint_migrations";

/// Keeps checkpoints in PostgreSQL (12 or later): each commit is one statement and so one transaction and one way to the
/// server and back. Commits that wait at the same time share one; everything else runs side by side, as much as the pool has
/// connections. Nothing is locked but the thread itself, and nobody waits for another's. Any number of processes may share
/// the database.
///
/// A call that loses its connection is made once more on another; if the first had reached the server after all, that is
/// seen and counts as done.
///
/// Behind `PgBouncer`, take session pooling, or version 1.21 and later with `max_prepared_statements` set.
///
/// ```no_run
/// # use stepgraph_checkpoint::Postgres;
/// # async fn open() -> Result<(), stepgraph::CheckpointError> {
/// let store = Postgres::open("postgres://stepgraph@localhost/stepgraph").await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
    durability: Durability,
    lines: Lines,
    keeping: Keeping,
}

impl Postgres {
    /// Connects to the database of a URL and makes the tables. Each commit waits for the disk.
    pub async fn open(url: &str) -> Result<Self, CheckpointError> {
        Self::open_with(url, PostgresOptions::default()).await
    }

    /// The same, with settings of your own.
    pub async fn open_with(url: &str, options: PostgresOptions) -> Result<Self, CheckpointError> {
        // The driver's own message could show the URL, and with it the password.
        let connect = PgConnectOptions::from_str(url).map_err(|_| {
            let message = "the address is no URL: write `postgres://USER:PASSWORD@HOST/DATABASE`";
            crate::row::unavailable(message.to_owned(), None)
        })?;
        if let Some(schema) = options.schema_name() {
            make_schema(&connect, schema).await?;
        }
        let connect = options.connect(connect);
        // By a connection beside the pool, which would go on trying where a server is down.
        let durability = prepare(connect.connect().await.map_err(failure::anywhere)?).await?;
        let pool = options.pool().connect_lazy_with(connect);
        Ok(Self::of(pool, durability, options.values_from_bytes()))
    }

    /// Works on a pool that others use too, and makes the tables in the first schema of its search path. Refused if its
    /// sessions may not write, or if the server takes no care that a crash of its machine leaves the database whole.
    pub async fn new(pool: PgPool) -> Result<Self, CheckpointError> {
        // One of the pool's own: it may set up each of them in its own way.
        let connection = pool.acquire().await.map_err(failure::anywhere)?;
        let durability = prepare(connection.detach()).await?;
        Ok(Self::of(pool, durability, LARGE_VALUE_BYTES))
    }

    fn of(pool: PgPool, durability: Durability, values_from: usize) -> Self {
        Self {
            pool,
            durability,
            lines: Lines::default(),
            keeping: keeping(values_from),
        }
    }

    /// What a finished commit survives.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    async fn connection(&self) -> Result<PoolConnection<Driver>, CheckpointError> {
        self.pool.acquire().await.map_err(failure::anywhere)
    }

    /// A connection that answers. After a restart of the server every one in the pool may be dead.
    async fn answering(&self) -> Result<PoolConnection<Driver>, CheckpointError> {
        let most = self.pool.options().get_max_connections();
        for _ in 0..most {
            let mut connection = self.connection().await?;
            if connection.ping().await.is_ok() {
                return Ok(connection);
            }
            // It is of no use to anybody; the pool opens another in its place.
            connection.close().await.ok();
        }
        self.connection().await
    }
}

/// Makes a call, and once more if its connection was lost on the way.
macro_rules! steady {
    ($store:expr, $connection:ident, $attempt:ident => $call:expr) => {{
        let mut held = $store.connection().await?;
        let ($connection, $attempt) = (&mut *held, Attempt::First);
        match $call.await {
            Err(error) if failure::is_lost(&error) => {
                drop(held);
                let mut held = $store.answering().await?;
                let ($connection, $attempt) = (&mut *held, Attempt::Second);
                $call.await
            }
            outcome => outcome,
        }
    }};
    ($store:expr, $connection:ident => $call:expr) => { steady!($store, $connection, _attempt => $call) };
}

/// The server makes long values shorter itself, by more than LZ4 would.
const fn keeping(from: usize) -> Keeping {
    Keeping {
        from,
        packed_from: usize::MAX,
    }
}

/// Whether a call may have been made before, with an outcome that nobody has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Attempt {
    First,
    Second,
}

impl Postgres {
    /// Writes a commit by a statement of its own, which says why if it is refused.
    async fn alone(
        &self,
        key: &ThreadKey,
        (epoch, expected): (Epoch, Option<Seq>),
        what: (&Commit, Option<&KeptPayload>),
        earlier: Attempt,
    ) -> Result<Option<Seq>, CheckpointError> {
        let fence = write::Fence { key, epoch, expected };
        steady!(self, connection, attempt => write::commit(connection, fence, what, attempt.max(earlier)))
    }

    /// The payload of a commit as its row keeps it.
    fn kept(&self, commit: &Commit) -> Option<KeptPayload> {
        let new = commit.checkpoint.as_ref()?;
        Some(KeptPayload::of(new.payload.bytes(), self.keeping))
    }
}

/// Whether a payload is kept as it is: only such a commit shares its statement with others.
const fn is_whole(kept: Option<&KeptPayload>) -> bool {
    matches!(kept, Some(KeptPayload { values: None, .. }))
}

async fn make_schema(connect: &PgConnectOptions, schema: &str) -> Result<(), CheckpointError> {
    let mut connection = connect.connect().await.map_err(failure::anywhere)?;
    let quoted = schema.replace('"', "\"\"");
    let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS \"{quoted}\"")))
        .execute(&mut connection)
        .await;
    // Several processes may make it at once, and all but one of them hear that it is there already.
    if let Err(error) = made
        && !failure::is_duplicate(&error)
    {
        return Err(failure::anywhere(error));
    }
    connection.close().await.map_err(failure::anywhere)
}

/// Looks at what a session promises, and makes the tables or brings them up to date. The connection is closed at the end,
/// and with it goes the lock that a failed migration leaves.
async fn prepare(mut connection: PgConnection) -> Result<Durability, CheckpointError> {
    let durability = promised(&mut connection).await?;
    let mut migrator = sqlx::migrate!("./migrations/postgres");
    migrator.dangerous_set_table_name(MIGRATION_TABLE);
    // `run` would take the connection too, but makes a future that the compiler cannot see to be `Send`.
    migrator
        .run_direct(None, &mut connection, false)
        .await
        .map_err(failure::migration)?;
    connection.close().await.map_err(failure::anywhere)?;
    Ok(durability)
}

/// Looks at what a session promises, and refuses what a store cannot be built on.
async fn promised(connection: &mut PgConnection) -> Result<Durability, CheckpointError> {
    const SETTINGS: &str = "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
                            current_setting('full_page_writes'), current_setting('transaction_read_only')";
    let settings: (String, String, String, String) = sqlx::query_as(SETTINGS)
        .fetch_one(connection)
        .await
        .map_err(failure::anywhere)?;
    let (synchronous, fsync, pages, read_only) = settings;
    let refuse = |message: &str| Err(crate::row::unavailable(message.to_owned(), None));
    if fsync != "on" || pages != "on" {
        return refuse(
            "the server's `fsync` or `full_page_writes` is off: a crash of its machine could damage the database; switch both on",
        );
    }
    if read_only != "off" {
        return refuse("the session may only read: connect to the primary server, as a user that may write");
    }
    Ok(if synchronous == "off" {
        Durability::Normal
    } else {
        Durability::Full
    })
}

/// A statement with its values.
type Statement<'q> = Query<'q, Driver, PgArguments>;

/// A statement whose first three values are the thread's full name, tenant first.
fn about<'q>(sql: &'static str, key: &'q ThreadKey) -> Statement<'q> {
    sqlx::query(sql)
        .bind(key.tenant.as_str())
        .bind(key.thread.as_str())
        .bind(text::written(key.namespace.as_str()))
}

#[async_trait]
impl Checkpointer for Postgres {
    fn durability(&self) -> StoreDurability {
        match self.durability {
            Durability::Full => StoreDurability::Machine,
            Durability::Normal => StoreDurability::Process,
        }
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        steady!(self, connection => write::claim(connection, key))
    }

    async fn begin(
        &self,
        key: &ThreadKey,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<(Epoch, Option<Seq>), CheckpointError> {
        let (kept, mut earlier) = (self.kept(&commit), Attempt::First);
        if let Some(barrier) = Lines::beginning(key, expected, &commit).filter(|_| is_whole(kept.as_ref())) {
            let id = barrier.new.id;
            match self.lines.commit(&self.pool, barrier).await? {
                Told::Written(epoch, head) => return Ok((epoch, Some(head))),
                Told::Alone(attempt) => earlier = attempt,
            }
            if earlier == Attempt::Second
                && let Some(epoch) = steady!(self, connection => write::begun(connection, key, id))?
            {
                return Ok((epoch, Some(Seq(1))));
            }
        }
        // The thread is there, or the commit says more than most.
        let epoch = self.claim(key).await?;
        let what = (&commit, kept.as_ref());
        let head = self.alone(key, (epoch, expected), what, earlier).await?;
        Ok((epoch, head))
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let kept = self.kept(&commit);
        let earlier = match Lines::going_on(key, epoch, expected, &commit).filter(|_| is_whole(kept.as_ref())) {
            None => Attempt::First,
            Some(barrier) => match self.lines.commit(&self.pool, barrier).await? {
                Told::Written(_, head) => return Ok(Some(head)),
                Told::Alone(attempt) => attempt,
            },
        };
        self.alone(key, (epoch, expected), (&commit, kept.as_ref()), earlier)
            .await
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        steady!(self, connection => read::get(connection, key, at))
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        steady!(self, connection => read::list(connection, key, page))
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        steady!(self, connection => write::branch(connection, key, epoch, from, name))
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        steady!(self, connection => read::branches(connection, key))
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        steady!(self, connection => read::inner(connection, key, after, limit))
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        steady!(self, connection => write::delete(connection, key))
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        steady!(self, connection => read::unfinished(connection, graph, limit))
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        steady!(self, connection => read::outbox(connection, topic, limit))
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        steady!(self, connection => write::acknowledge(connection, key, message))
    }

    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        steady!(self, connection => thinning::tag(connection, key, name, at))
    }

    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        steady!(self, connection => read::tags(connection, key))
    }

    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        steady!(self, connection => read::threads(connection, tenant, after, limit))
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let thinning = thinning::Cut::of(&thinning, self.keeping);
        steady!(self, connection => thinning::thin(connection, key, &thinning))
    }
}
