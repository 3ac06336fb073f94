//! The queue of one machine: apalis over the database that holds everything else.

use std::{fmt, sync::Arc, time::Duration};

use apalis::prelude::{Attempt, BackendExt, BoxDynError, Strategy, TaskBuilder, TaskId, WorkerBuilder, WorkerError};
use apalis_sqlite::{Config, SqliteStorage, queries};
use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture, stream};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::service::{DocumentId, ServiceError};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::limit::ConcurrencyLimitLayer;

use super::{Dispatch, IngestJob, JobHandler, Verdict};

const SERVICE: &str = "the job queue";
const QUEUE: &str = "ingest";
/// apalis's own migrations, kept apart from those of the other tables in the file.
const MIGRATIONS_TABLE: &str = "_apalis_migrations";
/// Jobs that may wait or run at once.
const CAPACITY: u64 = 10_000;
const HEARTBEAT: Duration = Duration::from_secs(2);
const MISSED_HEARTBEATS_MAX: usize = 3;
/// How often the queue is looked at when nobody rings: a job that waits for its next try becomes due silently.
const POLL: Duration = Duration::from_secs(1);
/// The pause before a worker that has lost the database begins anew.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Tries are counted and ended by the handler; the queue itself never gives a job up.
const ATTEMPTS_MAX: usize = 1_000_000;

/// [`Dispatch`] in a `SQLite` file. One process uses the file, so whatever a worker of another process holds at the
/// start is an orphan.
#[derive(Clone)]
pub struct SqliteDispatch {
    pool: SqlitePool,
    bell: Arc<Notify>,
}

impl fmt::Debug for SqliteDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteDispatch").finish_non_exhaustive()
    }
}

/// A job as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    tenant: String,
    document: String,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

impl SqliteDispatch {
    /// Makes the tables where they are missing, and takes over the jobs that an earlier process held. The settings of
    /// the pool are left as they are.
    ///
    /// # Errors
    /// When the database does not answer or refuses the tables.
    pub async fn open(pool: SqlitePool) -> Result<Self, ServiceError> {
        let mut migrations = SqliteStorage::migrations();
        migrations.dangerous_set_table_name(MIGRATIONS_TABLE);
        migrations.run(&pool).await.map_err(|error| failed(error.into()))?;
        let dispatch = Self {
            pool,
            bell: Arc::default(),
        };
        dispatch.recover().await.map_err(|error| failed(error.into()))?;
        Ok(dispatch)
    }

    /// Takes over what an earlier worker held, and forgets what is done with.
    async fn recover(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let orphans = "UPDATE Jobs SET status = 'Pending', lock_by = NULL, lock_at = NULL, attempts = attempts + 1 \
                       WHERE job_type = ? AND status IN ('Queued', 'Running')";
        let taken = sqlx::query(orphans)
            .bind(QUEUE)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        sqlx::query("DELETE FROM Jobs WHERE job_type = ? AND status IN ('Done', 'Killed')")
            .bind(QUEUE)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM Workers WHERE worker_type = ? AND id NOT IN (SELECT lock_by FROM Jobs WHERE lock_by IS NOT NULL)")
            .bind(QUEUE)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        if taken > 0 {
            tracing::info!(jobs = taken, "took over jobs that an earlier process had begun");
        }
        Ok(())
    }

    /// How many jobs of the tenant wait or are worked on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn of_tenant(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM Jobs WHERE job_type = ? AND instr(idempotency_key, ?) = 1")
                .bind(QUEUE)
                .bind(of(tenant))
                .fetch_one(&self.pool)
                .await
                .map_err(|error| failed(error.into()))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Drops the tenant's jobs. No worker may be at them: the server that uses the file is stopped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        sqlx::query("DELETE FROM Jobs WHERE job_type = ? AND instr(idempotency_key, ?) = 1")
            .bind(QUEUE)
            .bind(of(tenant))
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|error| failed(error.into()))
    }

    /// Hands out jobs until `stop`. The jobs run on tasks of their own, so that they outlive the worker.
    async fn work(
        &self,
        handler: Arc<dyn JobHandler>,
        concurrency: usize,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<(), BoxDynError> {
        // One job at a time into the worker's hands: a batch would wait in its buffer, and no heartbeat is sent
        // while anything is buffered.
        let config = Config::default()
            .queue(QUEUE)
            .batch_size(1)
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(MISSED_HEARTBEATS_MAX);
        let bell = Box::pin(stream::unfold(Arc::clone(&self.bell), |bell| async move {
            bell.notified().await;
            Some(((), bell))
        }));
        let backend = SqliteStorage::<Stored>::new(&self.pool)
            .with_config(config)
            .poll_with_strategy(Strategy::new().stream(bell).interval(POLL));
        let this = self.clone();
        // A lease belongs to the name: each start needs its own.
        let worker = WorkerBuilder::new(format!("{QUEUE}-{}", RunId::random()))
            .backend(backend)
            .layer(ConcurrencyLimitLayer::new(concurrency.max(1)))
            .build(
                move |stored: Stored, attempt: Attempt, id: TaskId| -> BoxFuture<'static, Result<(), BoxDynError>> {
                    let (this, handler) = (this.clone(), Arc::clone(&handler));
                    let work = async move { this.handle(&*handler, stored, &attempt, &id).await };
                    Box::pin(
                        tasks
                            .spawn(work)
                            .map(|ended| ended.unwrap_or_else(|error| Err(error.into()))),
                    )
                },
            );
        let mut run: BoxFuture<'static, Result<(), WorkerError>> = Box::pin(worker.run());
        // The worker is dropped, not stopped: one that stops no longer polls what it has begun, and a half-done fetch
        // would hold the database's write lock against the very jobs it waits for.
        tokio::select! {
            ended = &mut run => Ok(ended?),
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Lets the handler judge a job. An error means to the queue that the job comes back at its `run_at`.
    async fn handle(
        &self,
        handler: &dyn JobHandler,
        stored: Stored,
        attempt: &Attempt,
        id: &TaskId,
    ) -> Result<(), BoxDynError> {
        let job = IngestJob {
            // Written by `enqueue` from an authenticated tenant, into a table that nobody else writes.
            tenant: TenantId::authenticated(stored.tenant)?,
            document: DocumentId::new(stored.document),
            version: stored.version,
            trace: stored.trace.and_then(|trace| trace.parse().ok()),
        };
        let verdict = handler
            .handle(&job, u32::try_from(attempt.current()).unwrap_or(u32::MAX))
            .await;
        match verdict {
            Verdict::Done => {
                // At once, not by the worker's own acknowledgement, which a stop may forestall.
                sqlx::query("DELETE FROM Jobs WHERE id = ?")
                    .bind(id.to_string())
                    .execute(&self.pool)
                    .await?;
                Ok(())
            }
            Verdict::Again(after) => {
                let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
                sqlx::query("UPDATE Jobs SET run_at = strftime('%s', 'now') + ? WHERE id = ?")
                    .bind(seconds)
                    .bind(id.to_string())
                    .execute(&self.pool)
                    .await?;
                Err(format!("{job} is tried again in {after:?}").into())
            }
        }
    }

    async fn push(&self, job: &IngestJob) -> Result<(), BoxDynError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut key = job.to_string();
        let begun: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM Jobs WHERE job_type = ? AND idempotency_key = ? AND status IN ('Queued', 'Running'))")
                .bind(QUEUE)
                .bind(&key)
                .fetch_one(&mut *tx)
                .await?;
        if begun {
            // It may be at its very end, with the record already judged: one more job looks again after it.
            key.push('+');
        }
        let stored = Stored {
            tenant: job.tenant.as_str().to_owned(),
            document: job.document.as_str().to_owned(),
            version: job.version,
            trace: job.trace.map(|trace| trace.to_string()),
        };
        let task = TaskBuilder::new(serde_json::to_vec(&stored)?)
            .idempotency_key(&key)
            .max_attempts(ATTEMPTS_MAX)
            .build();
        queries::push_tasks(&mut *tx, QUEUE, &[task]).await?;
        tx.commit().await?;
        Ok(())
    }
}

#[async_trait]
impl Dispatch for SqliteDispatch {
    async fn enqueue(&self, job: &IngestJob) -> Result<(), ServiceError> {
        if self.waiting().await? >= CAPACITY {
            let message = format!("{CAPACITY} documents are waiting already: try again later");
            return Err(ServiceError::Unavailable {
                service: SERVICE,
                message,
                source: None,
            });
        }
        self.push(job).await.map_err(failed)?;
        self.bell.notify_one();
        Ok(())
    }

    async fn waiting(&self) -> Result<u64, ServiceError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM Jobs WHERE job_type = ? AND status IN ('Pending', 'Queued', 'Running', 'Failed')",
        )
        .bind(QUEUE)
        .fetch_one(&self.pool)
        .await
        .map_err(|error| failed(error.into()))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    fn capacity(&self) -> u64 {
        CAPACITY
    }

    async fn serve(
        &self,
        handler: Arc<dyn JobHandler>,
        concurrency: usize,
        stop: CancellationToken,
    ) -> Result<(), ServiceError> {
        let tasks = TaskTracker::new();
        while !stop.is_cancelled() {
            let work = async {
                self.recover().await?;
                self.work(Arc::clone(&handler), concurrency, tasks.clone(), stop.clone())
                    .await
            };
            if let Err(error) = work.await {
                tracing::error!(%error, "the worker of the job queue ended and begins anew");
                tokio::select! { () = tokio::time::sleep(RESTART_AFTER) => {} () = stop.cancelled() => {} }
            }
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// What the keys of a tenant's jobs begin with, as [`IngestJob`] is written; no tenant's name holds a `/`.
fn of(tenant: &TenantId) -> String {
    format!("{tenant}/")
}

fn failed(error: BoxDynError) -> ServiceError {
    ServiceError::Unavailable {
        service: SERVICE,
        message: error.to_string(),
        source: Some(error),
    }
}
