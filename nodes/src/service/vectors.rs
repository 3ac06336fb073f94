//! Chunks of documents: stored, searched, deleted, always inside one tenant.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stepgraph::TenantId;
use uuid::Uuid;

use super::{DocumentId, ModelName, ServiceError};

/// A piece of a document as it is stored and searched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Position in its document, from 0.
    pub index: u32,
    /// Title of the document.
    pub title: String,
    /// The text that is searched and shown.
    pub text: String,
    /// Dense vector, where an embedder is configured; its length is the knowledge base's dimension.
    pub dense: Option<Vec<f32>>,
}

/// What is fixed for all of a tenant's documents at the first ingest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnowledgeBase {
    /// ISO 639-1 code of the language whose stemmer and stop words are used, `und` for none.
    pub language: String,
    /// The embedding model and its dimension, where dense vectors are stored.
    pub embedding: Option<(ModelName, u32)>,
}

/// A search inside one tenant.
#[derive(Debug, Clone, Serialize)]
pub struct SearchQuery {
    /// The question as typed.
    pub text: String,
    /// Its dense vector, for hybrid search.
    pub dense: Option<Vec<f32>>,
    /// How many chunks to return at most.
    pub limit: u32,
}

/// A chunk that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The document it is part of.
    pub document_id: DocumentId,
    /// Position in its document, from 0.
    pub chunk_index: u32,
    /// Title of the document.
    pub title: String,
    /// The chunk's text.
    pub text: String,
    /// Higher is better; comparable inside one answer only.
    pub score: f32,
    /// Share of the question's meaning-bearing words that the chunk holds, weighted by their rarity, 0 to 1.
    /// With [`similarity`](Self::similarity), what decides whether a source supports an answer at all.
    pub coverage: f32,
    /// Cosine of the question's vector and the chunk's, where both were compared: -1 to 1, how near they are in meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
}

/// What names chunks outside, made once for good: other ids would double every point at the next ingest.
const POINT_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_0c52_7e0b_4d0e_9a35_c1f6_53a8_be24);

/// The id of a chunk in every store: `UUIDv5` of tenant, chunk index and document, so that a repeated write meets itself.
#[must_use]
pub fn point_id(tenant: &TenantId, document: &DocumentId, chunk_index: u32) -> Uuid {
    // A tenant's id has no `/`, and the document's comes last: no two chunks share a name.
    Uuid::new_v5(
        &POINT_NAMESPACE,
        format!("{tenant}/{chunk_index}/{}", document.as_str()).as_bytes(),
    )
}

/// Stores and searches chunks. Every call stays inside one tenant.
#[async_trait]
pub trait VectorStore: Send + Sync + 'static {
    /// Where the chunks are, for people: `embedded`, or the name of a kind of server.
    fn provider(&self) -> &'static str {
        "embedded"
    }

    /// Fixes language and embedding of the tenant's knowledge base at the first call and returns what holds.
    /// A different embedding later is [`ServiceError::Mismatch`]; a different language is ignored in favour of the
    /// stored one, since all documents must be stemmed alike.
    async fn prepare(&self, tenant: &TenantId, proposal: &KnowledgeBase) -> Result<KnowledgeBase, ServiceError>;

    /// What is fixed for the tenant, `None` before the first ingest.
    async fn knowledge_base(&self, tenant: &TenantId) -> Result<Option<KnowledgeBase>, ServiceError>;

    /// Makes `chunks` the whole content of the document in one transaction and returns the point ids, `UUIDv5` of
    /// (tenant, document, chunk index), in order. A second call with the same content changes nothing.
    ///
    /// The knowledge base must be prepared; each chunk brings a vector exactly where it has an embedding.
    async fn replace(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        chunks: &[Chunk],
    ) -> Result<Vec<Uuid>, ServiceError>;

    /// As [`replace`](Self::replace) called for each document in turn, all in one transaction: for bulk ingestion.
    async fn replace_many(
        &self,
        tenant: &TenantId,
        documents: &[(DocumentId, Vec<Chunk>)],
    ) -> Result<Vec<Vec<Uuid>>, ServiceError>;

    /// The best chunks, best first; ties by document id, then chunk index.
    async fn search(&self, tenant: &TenantId, query: &SearchQuery) -> Result<Vec<Hit>, ServiceError>;

    /// Removes a document's chunks and says how many there were. Gone from answers when this returns.
    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<u64, ServiceError>;

    /// Removes all that is kept of the tenant, its knowledge base included, and says how many chunks there were.
    async fn erase(&self, tenant: &TenantId) -> Result<u64, ServiceError>;

    /// How many chunks the tenant has.
    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), ServiceError>;
}

/// An embedding for people.
pub(super) fn embedding_name(embedding: Option<&(ModelName, u32)>) -> String {
    embedding.map_or_else(
        || "no model".to_owned(),
        |(model, length)| format!("`{model}` of {length} components"),
    )
}

/// What a text is embedded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be found.
    Document,
    /// To find.
    Query,
}

/// Turns texts into dense vectors.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// Name of the model, stored with the knowledge base.
    fn model(&self) -> &ModelName;

    /// Length of each vector.
    fn dimension(&self) -> u32;

    /// One vector per text, in order.
    async fn embed(&self, tenant: &TenantId, purpose: Purpose, texts: &[String])
    -> Result<Vec<Vec<f32>>, ServiceError>;
}
