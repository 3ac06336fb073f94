//! One file: accepted, then brought through the ingestion graph.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use stepgraph::TenantId;
use stepgraph_nodes::{
    parse::{Limit, ParseError},
    service::{Document, DocumentId, DocumentStatus, FileType},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::CliError,
    collect::Input,
    outcome::{Outcome, Row},
};
use crate::{
    app::Installation,
    backend::{Again, IngestFailure, IngestRunner, Progress},
    jobs::IngestJob,
};

/// How often a document is tried whose failure may pass.
const ATTEMPTS_MAX: u32 = 3;
/// The wait before the second try; it doubles with each.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Nobody but the record is told how far a document has come.
struct RecordAlone;

#[async_trait]
impl Progress for RecordAlone {
    async fn report(&self, document: &Document) {
        tracing::debug!(document = %document.id, status = ?document.status, "a document has come further");
    }
}

/// A document as its owner gives it.
pub(crate) struct Upload<'a> {
    /// Name of the document.
    pub(crate) id: &'a DocumentId,
    /// Name of the file.
    pub(crate) name: &'a str,
    /// What the file is said to be.
    pub(crate) file_type: FileType,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

/// Ingests single documents of one tenant.
pub(crate) struct FileIngest {
    installation: Installation,
    runner: Arc<dyn IngestRunner>,
    tenant: TenantId,
}

impl FileIngest {
    /// For the documents of one tenant.
    pub(crate) fn new(installation: &Installation, runner: Arc<dyn IngestRunner>, tenant: TenantId) -> Self {
        Self {
            installation: installation.clone(),
            runner,
            tenant,
        }
    }

    /// Reads the file and ingests it; `None` when `stop` came before its end.
    pub(super) async fn ingest(&self, input: Input, stop: CancellationToken) -> Result<Option<Row>, CliError> {
        let Input { path, id, file_type } = input;
        let outcome = match (file_type, self.read(&path).await?) {
            (None, _) => Some(failed(&ParseError::UnsupportedType {
                found: "not of a type that is read".to_owned(),
            })),
            (_, Err(error)) => Some(failed(&error)),
            (Some(file_type), Ok(bytes)) => {
                let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                self.store(
                    Upload {
                        id: &id,
                        name: &name,
                        file_type,
                        bytes,
                    },
                    &stop,
                )
                .await?
            }
        };
        Ok(outcome.map(|outcome| Row { path, id, outcome }))
    }

    /// The bytes, unless there are more than a document may have: those are never read.
    async fn read(&self, path: &PathBuf) -> Result<Result<Vec<u8>, ParseError>, CliError> {
        let unreadable = |source| CliError::Unreadable {
            path: path.clone(),
            source,
        };
        let bytes_max = self.installation.pdf.limits().upload_bytes_max;
        let length = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
        if usize::try_from(length).map_or(true, |length| length > bytes_max) {
            return Ok(Err(ParseError::LimitExceeded(Limit::UploadBytes(bytes_max))));
        }
        tokio::fs::read(path).await.map(Ok).map_err(unreadable)
    }

    /// Accepts the document and runs its ingestion to the end, going on where an earlier one has stopped. `None` when
    /// `stop` came before the end.
    pub(crate) async fn store(
        &self,
        upload: Upload<'_>,
        stop: &CancellationToken,
    ) -> Result<Option<Outcome>, CliError> {
        let Upload {
            id,
            name,
            file_type,
            bytes,
        } = upload;
        let document = self
            .installation
            .records
            .documents
            .accept(&self.tenant, id, name, file_type, &bytes)
            .await?;
        drop(bytes);
        if document.status == DocumentStatus::Completed {
            return Ok(Some(Outcome::Unchanged {
                chunks: document.chunks_total.unwrap_or(0),
            }));
        }
        let job = IngestJob::new(self.tenant.clone(), id.clone(), document.version);
        match self.run(&job, stop).await {
            Ok(()) => {
                tracing::info!(document = %id, "a document is in the knowledge base");
                let chunks = self
                    .installation
                    .records
                    .documents
                    .get(&self.tenant, id)
                    .await?
                    .and_then(|document| document.chunks_total);
                Ok(Some(Outcome::Stored {
                    chunks: chunks.unwrap_or(0),
                }))
            }
            Err(_) if stop.is_cancelled() => Ok(None),
            Err(IngestFailure { code, message, .. }) => {
                self.give_up(document, &code, &message).await?;
                Ok(Some(Outcome::Failed { code, message }))
            }
        }
    }

    async fn run(&self, job: &IngestJob, stop: &CancellationToken) -> Result<(), IngestFailure> {
        let mut wait = BACK_OFF;
        for _ in 1..ATTEMPTS_MAX {
            match self.runner.run(job, &RecordAlone, stop.clone()).await {
                Err(failure) if failure.again == Again::Later && !stop.is_cancelled() => {
                    tracing::warn!(document = %job.document, error = %failure, "an ingestion failed and is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => wait *= 2,
                        () = stop.cancelled() => return Err(failure),
                    }
                }
                over => return over,
            }
        }
        self.runner.run(job, &RecordAlone, stop.clone()).await
    }

    async fn give_up(&self, document: Document, code: &str, message: &str) -> Result<(), CliError> {
        let failed = Document {
            status: DocumentStatus::Failed,
            error_code: Some(code.to_owned()),
            error_message: Some(message.to_owned()),
            ..document
        };
        self.installation
            .records
            .documents
            .progress(&self.tenant, &failed)
            .await?;
        self.installation
            .records
            .documents
            .unstage(&self.tenant, &failed.id, failed.version)
            .await?;
        Ok(())
    }
}

fn failed(error: &ParseError) -> Outcome {
    Outcome::Failed {
        code: error.code().to_owned(),
        message: error.to_string(),
    }
}
