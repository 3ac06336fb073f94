//! The stages of an ingestion: read the text, cut it, embed it, store it.
//!
//! Between stages only [`Job`] travels; the file, its text and its chunks are staged with the document
//! ([`Documents::stage`]), so that a checkpoint stays small and a stage that is entered again finds its input.
//!
//! For the same reason the bodies of these stages cannot be replayed ([`Replay::bodies`](stepgraph::Replay::bodies)): what they
//! work on is not in the thread's record, and is dropped at the end. Such a thread is replayed by what its stages gave back.

mod chunk;
mod embed;
mod parse;
mod store;

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stepgraph::{NodeError, TenantId, Terminal};

pub use self::{
    chunk::{Cut, CutText},
    embed::{EmbedChunks, Embedded},
    parse::{Read, ReadText},
    store::{StoreChunks, Stored},
};
use crate::service::{Document, DocumentId, DocumentStatus, Documents, ServiceError, Staged};

/// Which content of which document is ingested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The document.
    pub document: DocumentId,
    /// The version of its content.
    pub version: u64,
    /// Language for a knowledge base that has none yet, ISO 639-1; detected from the text otherwise.
    pub language: Option<String>,
}

/// How far an ingestion has come. Emitted by every stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub status: DocumentStatus,
    /// Of the whole, 0 to 100.
    pub percent: u8,
    /// Chunks in all, once known.
    pub chunks_total: Option<u32>,
    /// Chunks that are through this stage.
    pub chunks_processed: Option<u32>,
}

/// The document that a job is about, and where its payloads lie.
struct Desk<'a> {
    documents: &'a Arc<dyn Documents>,
    tenant: &'a TenantId,
    job: &'a Job,
}

impl Desk<'_> {
    /// The record, refused when the document is gone or has newer content: another job is about that.
    async fn document(&self) -> Result<Document, NodeError> {
        let found = self
            .documents
            .get(self.tenant, &self.job.document)
            .await
            .map_err(ServiceError::into_node_error)?;
        match found {
            Some(document) if document.version == self.job.version => Ok(document),
            Some(_) => Err(NodeError::terminal(Superseded::NewerContent)),
            None => Err(NodeError::terminal(Superseded::Deleted)),
        }
    }

    /// Writes how far the document has come.
    async fn report(&self, progress: Progress) -> Result<(), NodeError> {
        let document = self.document().await?;
        let document = Document {
            status: progress.status,
            progress: progress.percent,
            chunks_total: progress.chunks_total.or(document.chunks_total),
            chunks_processed: progress.chunks_processed.or(document.chunks_processed),
            error_code: None,
            error_message: None,
            ..document
        };
        self.documents
            .progress(self.tenant, &document)
            .await
            .map_err(ServiceError::into_node_error)
    }

    async fn bytes(&self, what: Staged) -> Result<Vec<u8>, NodeError> {
        let staged = self
            .documents
            .staged(self.tenant, &self.job.document, self.job.version, what)
            .await;
        staged
            .map_err(ServiceError::into_node_error)?
            .ok_or_else(|| NodeError::terminal(Superseded::Unstaged))
    }

    async fn load<T: DeserializeOwned>(&self, what: Staged) -> Result<T, NodeError> {
        serde_json::from_slice(&self.bytes(what).await?).terminal()
    }

    async fn keep<T: Serialize>(&self, what: Staged, value: &T) -> Result<(), NodeError> {
        let bytes = serde_json::to_vec(value).terminal()?;
        let staged = self
            .documents
            .stage(self.tenant, &self.job.document, self.job.version, what, &bytes)
            .await;
        staged.map_err(ServiceError::into_node_error)
    }
}

/// Why an ingestion has nothing more to do although it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Superseded {
    /// The document was removed meanwhile.
    #[error("the document was deleted while it was ingested")]
    Deleted,
    /// New content has arrived under the same id.
    #[error("the document has newer content, which is ingested instead")]
    NewerContent,
    /// The stage before left nothing behind.
    #[error("the document's content is no longer staged: upload it again")]
    Unstaged,
}
