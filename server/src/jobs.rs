//! Documents are ingested in the background, by jobs that outlive the process.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use stepgraph::TenantId;
use stepgraph_nodes::{
    service::{DocumentId, ServiceError},
    trace::TraceParent,
};
use tokio_util::sync::CancellationToken;

mod callback;
mod ingestions;
mod queue;

pub(crate) use ingestions::Ingestions;
pub use queue::SqliteDispatch;

/// A document to ingest. A job carries names only; the record in the database is the truth.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct IngestJob {
    /// Whose document it is.
    pub tenant: TenantId,
    /// Which document.
    pub document: DocumentId,
    /// Which version of it.
    pub version: u64,
    /// The trace of the request that brought it, which everything done for it is part of.
    pub trace: Option<TraceParent>,
}

impl IngestJob {
    /// A job that is part of no trace.
    #[must_use]
    pub const fn new(tenant: TenantId, document: DocumentId, version: u64) -> Self {
        Self {
            tenant,
            document,
            version,
            trace: None,
        }
    }

    /// The same as part of a trace.
    #[must_use]
    pub fn traced(self, trace: Option<TraceParent>) -> Self {
        Self { trace, ..self }
    }
}

impl fmt::Display for IngestJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.tenant, self.document, self.version)
    }
}

/// What becomes of a job that was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is over, well or not.
    Done,
    /// It comes back after this time.
    Again(Duration),
}

/// Does the work of a job.
#[async_trait]
pub trait JobHandler: Send + Sync + 'static {
    /// Handles a job; `attempt` counts from 1 and grows with every try, a try that ended with the process included.
    async fn handle(&self, job: &IngestJob, attempt: u32) -> Verdict;
}

/// Keeps jobs until they are done: each is handled at least once, whatever ends the process.
#[async_trait]
pub trait Dispatch: Send + Sync + 'static {
    /// Adds a job. The same one again, while it waits or is worked on, changes nothing.
    async fn enqueue(&self, job: &IngestJob) -> Result<(), ServiceError>;

    /// How many jobs wait or are worked on.
    async fn waiting(&self) -> Result<u64, ServiceError>;

    /// How many jobs there may be at once; more are refused.
    fn capacity(&self) -> u64;

    /// Hands jobs to `handler`, `concurrency` at a time, until `stop`; then waits for those it has handed out.
    /// Begins with the jobs that an earlier process has left behind.
    async fn serve(
        &self,
        handler: Arc<dyn JobHandler>,
        concurrency: usize,
        stop: CancellationToken,
    ) -> Result<(), ServiceError>;
}
