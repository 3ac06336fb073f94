//! Documents through the ingestion graph: a thread for each version of a document, resumed where it was cut off.

use std::{convert::Infallible, fmt, future::IntoFuture as _, sync::Arc};

use async_trait::async_trait;
use stepgraph::{
    Cancel, EventKind, EventReader, Graph, InvalidId, OnBusy, OnPending, Outcome, ReaderGone, Run, RunError, ThreadId,
    ThreadKey,
    checkpoint::{At, RunStatus},
};
use stepgraph_graphs::{IngestState, IngestStateInput};
use stepgraph_nodes::{
    ingest::{Job, Superseded},
    parse::ParseError,
    service::{Clients, Documents, ServiceError},
    trace,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    backend::{Again, IngestFailure, IngestRunner, Progress},
    jobs::IngestJob,
};

/// Events between the graph and who hears of the progress.
const EVENTS_WAITING_MAX: usize = 16;

/// Ingests through the ingestion graph.
#[derive(Clone)]
pub struct GraphIngest {
    pub(super) graph: Graph<IngestState>,
    documents: Arc<dyn Documents>,
    clients: Arc<dyn Clients>,
}

impl fmt::Debug for GraphIngest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphIngest")
            .field("graph", &self.graph.name())
            .finish_non_exhaustive()
    }
}

impl GraphIngest {
    /// Over a graph that has its checkpointer.
    #[must_use]
    pub fn new(graph: Graph<IngestState>, documents: Arc<dyn Documents>, clients: Arc<dyn Clients>) -> Self {
        Self {
            graph,
            documents,
            clients,
        }
    }

    /// The graph as a Mermaid flow chart.
    #[must_use]
    pub fn drawing(&self) -> String {
        self.graph.mermaid()
    }

    /// Begins with the language that the tenant has set; without one it is told from the text.
    async fn begin(&self, thread: &ThreadKey, job: &IngestJob) -> Result<Run<IngestState>, Stop> {
        let client = self.clients.by_id(job.tenant.as_str()).await?;
        let language = client.and_then(|client| client.settings.language);
        let job = Job {
            document: job.document.clone(),
            version: job.version,
            language: language.map(|language| language.code().to_owned()),
        };
        let run = self.graph.run(thread, IngestStateInput { job });
        Ok(run.on_pending(OnPending::Discard))
    }

    /// Goes on with what an earlier run has left, if it has left anything.
    async fn go_on(&self, thread: &ThreadKey) -> Result<Option<Run<IngestState>>, Stop> {
        let left = self
            .graph
            .state(thread, At::Head)
            .await?
            .and_then(|snapshot| snapshot.run);
        Ok(match left.map(|mark| mark.status) {
            Some(RunStatus::Running | RunStatus::Stopped | RunStatus::Failed) => Some(self.graph.resume(thread)),
            Some(RunStatus::Done | RunStatus::Asked) | None => None,
        })
    }

    async fn drive(
        &self,
        run: Run<IngestState>,
        job: &IngestJob,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let (sender, reader) = stepgraph::events(EVENTS_WAITING_MAX, ReaderGone::Finish);
        let stop = Cancel::new();
        let mut run = run.on_busy(OnBusy::Wait).cancel(&stop).events(sender);
        if let Some(trace) = trace::current() {
            run = run.provide(trace);
        }
        let run = run.into_future();
        let work = async { tokio::join!(run, self.relay(reader, job, progress)).0 };
        let watch = async {
            cancel.cancelled().await;
            stop.cancel();
            std::future::pending::<Infallible>().await
        };
        let outcome = tokio::select! {
            outcome = work => outcome?,
            never = watch => match never {},
        };
        match outcome {
            Outcome::Done(_) => Ok(()),
            _ => Err(Stop::Told),
        }
    }

    /// Tells how the record stands whenever the graph says that it has changed.
    async fn relay(&self, mut reader: EventReader<IngestState>, job: &IngestJob, progress: &dyn Progress) {
        while let Some(event) = reader.next().await {
            if !matches!(event.kind, EventKind::Custom { .. }) {
                continue;
            }
            match self.documents.get(&job.tenant, &job.document).await {
                Ok(Some(document)) if document.version == job.version => progress.report(&document).await,
                Ok(_) => {}
                Err(error) => tracing::warn!(%job, %error, "the progress of a document cannot be told"),
            }
        }
    }
}

#[async_trait]
impl IngestRunner for GraphIngest {
    async fn run(
        &self,
        job: &IngestJob,
        progress: &dyn Progress,
        cancel: CancellationToken,
    ) -> Result<(), IngestFailure> {
        let ingested = async {
            let thread = thread(job)?;
            let Some(left) = self.go_on(&thread).await? else {
                return self
                    .drive(self.begin(&thread, job).await?, job, progress, &cancel)
                    .await;
            };
            match self.drive(left, job, progress, &cancel).await {
                // The payloads were dropped when the document was given up; it is accepted again with its file.
                Err(Stop::Run(error)) if error.node_error() == Some(&Superseded::Unstaged) => {
                    self.drive(self.begin(&thread, job).await?, job, progress, &cancel)
                        .await
                }
                over => over,
            }
        };
        ingested.await.map_err(|stop| failure(&stop))
    }
}

/// Why an ingestion did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("it was told to stop")]
    Told,
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    Client(#[from] ServiceError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// A document's id may hold anything; its thread is named by a digest of it.
fn thread(job: &IngestJob) -> Result<ThreadKey, InvalidId> {
    /// Made once for good: another one would lose sight of every ingestion that was cut off.
    const DOCUMENTS: Uuid = Uuid::from_u128(0x0d0c_51f6_92a4_4e0b_8d7a_6c1e_4b8f_2a93);
    let document = Uuid::new_v5(&DOCUMENTS, job.document.as_str().as_bytes());
    let name = format!("document:{document}:{}", job.version);
    Ok(ThreadKey::new(job.tenant.clone(), ThreadId::new(name)?))
}

/// What the owner reads, and whether another try makes sense.
fn failure(stop: &Stop) -> IngestFailure {
    let failed = |code: &str, message: String, passing: bool| IngestFailure {
        code: code.to_owned(),
        message,
        again: if passing { Again::Later } else { Again::Never },
    };
    let error = match stop {
        Stop::Told => return failed("stopped", "it was stopped before its end".to_owned(), true),
        Stop::Id(error) => return failed("internal", error.to_string(), false),
        Stop::Client(error) => return failed(error.code(), error.to_string(), error.is_retryable()),
        Stop::Run(error) => error,
    };
    if let Some(parse) = error.node_error::<ParseError>() {
        return failed(parse.code(), parse.to_string(), parse.may_pass());
    }
    if let Some(service) = error.node_error::<ServiceError>() {
        return failed(service.code(), service.to_string(), service.is_retryable());
    }
    if let Some(superseded) = error.node_error::<Superseded>() {
        return failed("superseded", superseded.to_string(), false);
    }
    match error {
        RunError::Checkpoint(store) => failed(store.code(), store.to_string(), store.is_retryable()),
        other => failed(other.code(), other.to_string(), false),
    }
}
