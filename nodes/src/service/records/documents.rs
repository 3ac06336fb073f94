//! Documents of a tenant and the payloads of their ingestion.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stepgraph::TenantId;
use uuid::Uuid;

use crate::{service::ServiceError, trace::TraceParent};

/// Name of a document, unique inside its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DocumentId(String);

impl DocumentId {
    /// A document by its id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Formats that can be ingested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// Portable document format.
    Pdf,
    /// Word, Office Open XML.
    Docx,
    /// Plain text in any encoding we can tell.
    Txt,
    /// Comma, semicolon, tab or bar separated values.
    Csv,
}

impl FileType {
    /// The usual extension, which is also the wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Docx => "docx",
            Self::Txt => "txt",
            Self::Csv => "csv",
        }
    }
}

/// How far a document has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocumentStatus {
    /// Accepted, waiting for a worker.
    Pending,
    /// Text is being read out of the file.
    Parsing,
    /// The text is being cut.
    Chunking,
    /// Vectors are being made.
    Embedding,
    /// Chunks are being written to the vector store.
    Storing,
    /// Done; answers can rest on it.
    Completed,
    /// Given up; `error_code` and `error_message` say why.
    Failed,
}

/// The record of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Unique inside the tenant.
    pub id: DocumentId,
    /// Name of the file as uploaded.
    pub original_name: String,
    /// What it claims and was found to be.
    pub file_type: FileType,
    /// Bytes of the file.
    pub file_size: u64,
    /// Counts up with every new content of the same id.
    pub version: u64,
    /// How far it has come.
    pub status: DocumentStatus,
    /// 0 to 100.
    pub progress: u8,
    /// Chunks made, once known.
    pub chunks_total: Option<u32>,
    /// Chunks stored so far.
    pub chunks_processed: Option<u32>,
    /// Points in the vector store, once stored.
    pub point_ids: Vec<Uuid>,
    /// Stable code of the failure.
    pub error_code: Option<String>,
    /// The failure in words fit for the owner of the document.
    pub error_message: Option<String>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When anything here last changed.
    pub updated_at: DateTime<Utc>,
}

/// A document that was accepted and is not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub document: DocumentId,
    /// The version that is to be processed.
    pub version: u64,
    /// The trace of the request that brought it.
    pub trace: Option<TraceParent>,
}

/// Some documents and where to go on.
#[derive(Debug, Clone)]
pub struct DocumentPage {
    /// Newest first.
    pub documents: Vec<Document>,
    /// Pass it to get the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// Which payload of an ingestion is staged: the graph's state holds references, never these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    /// The file as uploaded.
    File,
    /// The text read out of it, as JSON of `parse::Parsed`.
    Text,
    /// The chunks, as JSON of `Vec<Chunk>`, with vectors once embedded.
    Chunks,
}

/// Documents of a tenant and the payloads of their ingestion.
#[async_trait]
pub trait Documents: Send + Sync + 'static {
    /// Accepts a file: writes the record (status pending, next version) and stages the bytes in one transaction.
    /// The same file again under the same id (bytes, name and type) keeps the version, so that a repeat joins the first;
    /// one that had failed starts anew. What is written keeps the trace it is accepted under ([`current`](crate::trace::current)). A version is never used twice, not even after the document was deleted.
    async fn accept(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        original_name: &str,
        file_type: FileType,
        bytes: &[u8],
    ) -> Result<Document, ServiceError>;

    /// The record, or `None`.
    async fn get(&self, tenant: &TenantId, id: &DocumentId) -> Result<Option<Document>, ServiceError>;

    /// The tenants that have a document of this id, for the operator's status call without a tenant.
    async fn owners(&self, id: &DocumentId) -> Result<Vec<TenantId>, ServiceError>;

    /// The documents of all tenants that are neither completed nor failed, oldest first: what an earlier process has
    /// accepted and not ended. For the operator's start of a server.
    async fn unfinished(&self, limit: u32) -> Result<Vec<Unfinished>, ServiceError>;

    /// The tenant's documents, newest first.
    async fn list(&self, tenant: &TenantId, limit: u32, cursor: Option<&str>) -> Result<DocumentPage, ServiceError>;

    /// How many documents count against the tenant's quota (all but failed ones).
    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError>;

    /// Writes status, progress, counts, points and error of `document`; refused for an older version than stored.
    async fn progress(&self, tenant: &TenantId, document: &Document) -> Result<(), ServiceError>;

    /// Keeps a payload of this version of the document.
    async fn stage(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        version: u64,
        what: Staged,
        bytes: &[u8],
    ) -> Result<(), ServiceError>;

    /// Reads a payload back.
    async fn staged(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        version: u64,
        what: Staged,
    ) -> Result<Option<Vec<u8>>, ServiceError>;

    /// Drops all payloads of the document up to and with this version.
    async fn unstage(&self, tenant: &TenantId, id: &DocumentId, version: u64) -> Result<(), ServiceError>;

    /// Removes record and payloads; says whether there was one.
    async fn delete(&self, tenant: &TenantId, id: &DocumentId) -> Result<bool, ServiceError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), ServiceError>;

    /// Name of the implementation, for `/health`: `embedded`, or the server it stands for.
    fn provider(&self) -> &'static str;
}

/// A digest as text.
pub(crate) fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest
        .iter()
        .fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
