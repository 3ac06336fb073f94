//! What happens around an ingestion: who may run, when to try again, when to give up, who is told.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use stepgraph::TenantId;
use stepgraph_nodes::{
    service::{Document, DocumentId, DocumentStatus, Documents, ServiceError, VectorStore},
    trace,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Dispatch, IngestJob, JobHandler, Verdict, callback::Callback};
use crate::{
    backend::{Again, Backend, HttpSettings, IngestFailure, IngestRunner, Progress},
    guard::Guard,
};

/// How often a document is tried before it is given up.
const ATTEMPTS_MAX: u32 = 6;
/// The wait before the second try; it doubles with each.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How long a deletion waits for an ingestion of the same document to notice.
const STOP_LIMIT: Duration = Duration::from_secs(10);

type Key = (TenantId, DocumentId);

/// An ingestion under way.
#[derive(Debug, Clone)]
struct Begun {
    version: u64,
    token: CancellationToken,
}

/// The ingestions of this process.
pub(crate) struct Ingestions {
    runner: Arc<dyn IngestRunner>,
    documents: Arc<dyn Documents>,
    vectors: Arc<dyn VectorStore>,
    callback: Option<Callback>,
    /// Owns the call-back's task, which outlives the jobs it speaks of.
    callbacks: TaskTracker,
    closing: CancellationToken,
    /// One ingestion a document at most: two versions at once would mix their chunks.
    running: Mutex<HashMap<Key, Begun>>,
    /// Counts the ingestions that ended; whoever waits for one looks again at each.
    ended: watch::Sender<u64>,
}

impl Ingestions {
    pub(crate) fn new(backend: &Backend, settings: &HttpSettings) -> Self {
        let (callbacks, closing) = (TaskTracker::new(), CancellationToken::new());
        let callback = settings.progress_callback.as_deref().map(|origin| {
            let guard = Guard::new(&settings.callback_hosts).with_origin(origin);
            let secret = settings.internal_secret.clone();
            Callback::new(origin, guard, secret, &callbacks, closing.clone())
        });
        Self {
            runner: Arc::clone(&backend.ingest),
            documents: Arc::clone(&backend.documents),
            vectors: Arc::clone(&backend.vectors),
            callback,
            callbacks,
            closing,
            running: Mutex::default(),
            ended: watch::Sender::new(0),
        }
    }

    /// Gives every document that an earlier process has not ended a job, in case it had none: a record is written before
    /// its job, and a process may end between the two.
    pub(crate) async fn sweep(&self, dispatch: &dyn Dispatch) -> Result<(), ServiceError> {
        let limit = u32::try_from(dispatch.capacity()).unwrap_or(u32::MAX);
        for left in self.documents.unfinished(limit).await? {
            let job = IngestJob::new(left.tenant, left.document, left.version).traced(left.trace);
            dispatch.enqueue(&job).await?;
        }
        Ok(())
    }

    /// Sends what is left of the call-backs. Called once no job is worked on any more.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.callbacks.close();
        self.callbacks.wait().await;
    }

    /// The document once it is completed or failed, or as it stands when `limit` is over.
    pub(crate) async fn settled(
        &self,
        tenant: &TenantId,
        accepted: Document,
        limit: Duration,
    ) -> Result<Document, ServiceError> {
        let deadline = Instant::now() + limit;
        let mut ended = self.ended.subscribe();
        let mut document = accepted;
        loop {
            ended.mark_unchanged();
            match self.documents.get(tenant, &document.id).await? {
                Some(current) if current.version == document.version => document = current,
                // Deleted or replaced meanwhile: nothing more will happen to this version.
                Some(_) | None => return Ok(document),
            }
            if matches!(document.status, DocumentStatus::Completed | DocumentStatus::Failed) {
                return Ok(document);
            }
            match tokio::time::timeout_at(deadline, ended.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(document),
            }
        }
    }

    /// Stops an ingestion of this document and waits until it has ended.
    pub(crate) async fn stopped(&self, tenant: &TenantId, document: &DocumentId) {
        let key = (tenant.clone(), document.clone());
        let mut ended = self.ended.subscribe();
        let still_running = async {
            while let Some(begun) = self.begun(&key) {
                begun.token.cancel();
                if ended.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(STOP_LIMIT, still_running).await.is_err() {
            tracing::warn!(%tenant, %document, limit = ?STOP_LIMIT, "an ingestion did not stop within its limit");
        }
    }

    /// Waits until this job may be the only ingestion of its document. One of another version is stopped.
    async fn begin(&self, job: &IngestJob) -> Running<'_> {
        let key = (job.tenant.clone(), job.document.clone());
        let mut ended = self.ended.subscribe();
        loop {
            match self.claim(&key, job.version) {
                Ok(token) => return Running { of: self, key, token },
                Err(begun) if begun.version != job.version => begun.token.cancel(),
                Err(_) => {}
            }
            // The sender lives in `self`: this returns when an ingestion ends.
            let _ = ended.changed().await;
        }
    }

    fn claim(&self, key: &Key, version: u64) -> Result<CancellationToken, Begun> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = running.get(key) {
            return Err(begun.clone());
        }
        let token = CancellationToken::new();
        running.insert(
            key.clone(),
            Begun {
                version,
                token: token.clone(),
            },
        );
        Ok(token)
    }

    fn begun(&self, key: &Key) -> Option<Begun> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    async fn ingest(&self, job: &IngestJob, attempt: u32) -> Result<Verdict, ServiceError> {
        let running = self.begin(job).await;
        let Some(document) = self.documents.get(&job.tenant, &job.document).await? else {
            return Ok(Verdict::Done);
        };
        let over = matches!(document.status, DocumentStatus::Completed | DocumentStatus::Failed);
        if document.version != job.version || over {
            return Ok(Verdict::Done);
        }
        let result = if attempt > ATTEMPTS_MAX {
            Err(never(
                "ingest::attempts",
                "processing was tried too often without coming to an end",
            ))
        } else {
            let told = Told {
                callback: self.callback.as_ref(),
                tenant: &job.tenant,
            };
            let work = AssertUnwindSafe(self.runner.run(job, &told, running.token.clone())).catch_unwind();
            work.await
                .unwrap_or_else(|_| Err(never("ingest::panic", "processing failed on our side")))
        };
        self.conclude(job, attempt, result).await
    }

    async fn conclude(
        &self,
        job: &IngestJob,
        attempt: u32,
        result: Result<(), IngestFailure>,
    ) -> Result<Verdict, ServiceError> {
        let Some(mut document) = self.documents.get(&job.tenant, &job.document).await? else {
            // Deleted while it was worked on: what was stored after the deletion goes too.
            self.vectors.delete(&job.tenant, &job.document).await?;
            return Ok(Verdict::Done);
        };
        if document.version != job.version {
            return Ok(Verdict::Done);
        }
        match result {
            Ok(()) => {}
            Err(failure) if failure.again == Again::Later && attempt < ATTEMPTS_MAX => {
                tracing::warn!(%job, attempt, %failure, "an ingestion failed and is tried again");
                return Ok(Verdict::Again(
                    BACK_OFF * 2_u32.saturating_pow(attempt.saturating_sub(1)),
                ));
            }
            Err(failure) => {
                tracing::warn!(%job, attempt, %failure, "an ingestion failed for good");
                document.status = DocumentStatus::Failed;
                document.error_code = Some(failure.code);
                document.error_message = Some(failure.message);
                self.documents.progress(&job.tenant, &document).await?;
            }
        }
        if let Some(callback) = &self.callback {
            callback.report(&job.tenant, &document).await;
        }
        Ok(Verdict::Done)
    }
}

#[async_trait]
impl JobHandler for Ingestions {
    async fn handle(&self, job: &IngestJob, attempt: u32) -> Verdict {
        let work = trace::within(job.trace, self.ingest(job, attempt));
        let verdict = work.await.unwrap_or_else(|error| {
            tracing::error!(%job, %error, "an ingestion could not be looked after and is tried again");
            Verdict::Again(BACK_OFF)
        });
        self.ended.send_modify(|count| *count = count.wrapping_add(1));
        verdict
    }
}

/// Held while a document is ingested.
struct Running<'a> {
    of: &'a Ingestions,
    key: Key,
    token: CancellationToken,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.of
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
        self.of.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

struct Told<'a> {
    callback: Option<&'a Callback>,
    tenant: &'a TenantId,
}

#[async_trait]
impl Progress for Told<'_> {
    async fn report(&self, document: &Document) {
        // The result is told when it is settled, whatever the runner says.
        let settled = matches!(document.status, DocumentStatus::Completed | DocumentStatus::Failed);
        if let (Some(callback), false) = (self.callback, settled) {
            callback.report(self.tenant, document).await;
        }
    }
}

fn never(code: &str, message: &str) -> IngestFailure {
    IngestFailure {
        code: code.to_owned(),
        message: message.to_owned(),
        again: Again::Never,
    }
}
