//! Records that outlive a run: clients, documents, the chat log; and the cache.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stepgraph::{RunId, TenantId};
use uuid::Uuid;

use super::{ModelName, ServiceError, Usage};

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

/// What a tenant pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 100 chat messages an hour, 10 documents.
    Free,
    /// 1,000 chat messages an hour, 100 documents.
    Paid,
}

/// Whether a client may use the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientStatus {
    /// Served.
    Active,
    /// Refused until the owner goes on.
    Paused,
    /// Refused.
    Disabled,
}

/// A tenant as the operator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Whose data it is.
    pub tenant: TenantId,
    /// Free or paid.
    pub tier: Tier,
    /// Whether it is served.
    pub status: ClientStatus,
    /// The model the tenant chose, the tier's default otherwise.
    pub model: Option<ModelName>,
    /// Instructions of the tenant's own, put behind ours.
    pub system_prompt: Option<String>,
    /// Hosts whose pages may carry the widget.
    pub allowed_domains: Vec<String>,
    /// Whether the hourly limit is lifted (the demo tenant).
    pub unlimited: bool,
}

/// Looks up and makes clients.
#[async_trait]
pub trait Clients: Send + Sync + 'static {
    /// The client that a public key belongs to; any status.
    async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError>;

    /// The client with this id; the caller has proved to be the operator or the internal service.
    async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError>;

    /// Makes or changes a client and returns its public key (`pk_live_..`), which stays the same once made.
    async fn put(&self, client: &Client) -> Result<String, ServiceError>;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// one that had failed starts anew. A version is never used twice, not even after the document was deleted.
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

    /// The documents of all tenants that are neither completed nor failed, oldest first, each with its version: what an
    /// earlier process has accepted and not ended. For the operator's start of a server.
    async fn unfinished(&self, limit: u32) -> Result<Vec<(TenantId, DocumentId, u64)>, ServiceError>;

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
}

/// What an answer rests on, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The document.
    pub document_id: String,
    /// Its title.
    pub title: String,
    /// At most 200 characters of the text the answer rests on.
    pub excerpt: String,
    /// Higher is better.
    pub score: f32,
    /// Which chunk of the document.
    pub chunk_index: u32,
}

/// One question and its answer, as they are logged: two rows (user, assistant) and the day's usage.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatTurn {
    /// The run that made the answer; a second write for the same run changes nothing.
    pub run: RunId,
    /// The chat session, as the caller sent it.
    pub session: String,
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// What the answer rests on.
    pub sources: Vec<Source>,
    /// What it cost.
    pub usage: Usage,
    /// The model that answered, by its real name.
    pub model: ModelName,
    /// From acceptance to the end of the answer.
    pub latency: Duration,
    /// Whether a service failed on the way and the answer was made without it.
    pub degraded: bool,
    /// When the question was accepted.
    pub asked_at: DateTime<Utc>,
}

/// Keeps what was said and what it cost.
#[async_trait]
pub trait ChatLog: Send + Sync + 'static {
    /// Writes both rows and books the usage of the day, all in one transaction and once per run.
    async fn write(&self, tenant: &TenantId, turn: &ChatTurn) -> Result<(), ServiceError>;

    /// The latest `limit` turns of a session, oldest first.
    async fn session(&self, tenant: &TenantId, session: &str, limit: u32) -> Result<Vec<ChatTurn>, ServiceError>;
}

/// Short-lived values by key, always inside one tenant.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// The value, unless it has expired.
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError>;

    /// Keeps a value for `ttl`.
    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError>;

    /// Adds one to a counter that lives for `ttl` from its first increment, atomically, and returns the new count.
    async fn increment(&self, tenant: &TenantId, key: &str, ttl: Duration) -> Result<u64, ServiceError>;
}
