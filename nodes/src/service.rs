//! The services that nodes need, each behind a trait, and the words they share.
//!
//! | trait | embedded implementation (no server, no key) |
//! |---|---|
//! | [`VectorStore`] | [`embedded::SqliteVectors`] |
//! | [`Embedder`] | none: sparse search alone is the default |
//! | [`ChatModel`] | [`embedded::Extractive`], [`embedded::Scripted`] |
//! | [`Clients`], [`Documents`], [`ChatLog`], [`Feedbacks`], [`UsageBook`], [`Threads`], [`TenantData`] | [`embedded::SqliteRecords`], on a server [`postgres::PostgresRecords`] |
//! | [`Cache`] | [`embedded::MokaCache`] |
//!
//! [`openai`] serves [`ChatModel`] and [`Embedder`] from any provider that speaks the protocol of `OpenAI`, [`anthropic`] the
//! first by that provider's own. [`resilience`] is the layer around them: time limits, tries, circuit breaker; a
//! [`Catalogue`] knows what models can do and what they cost.
//!
//! [`qdrant::QdrantVectors`] serves [`VectorStore`] from a Qdrant, [`redis::RedisCache`] serves [`Cache`] from a Redis that
//! several processes share, and [`FallbackCache`] goes on without
//! it. [`CachedVectors`] and [`CachedEmbedder`] keep what was found and embedded in either.
//!
//! [`VectorCatalog`] reads a store of chunks out, and [`Transfer`] fills another with them.
//!
//! Every call that touches a tenant's data takes the [`TenantId`](stepgraph::TenantId) first. Errors are [`ServiceError`]: they say whether
//! trying again can help, never which HTTP status to send.

pub mod anthropic;
mod cached;
mod catalogue;
mod chat;
pub mod embedded;
mod error;
mod fallback;
pub mod openai;
pub mod postgres;
mod provider;
pub mod qdrant;
mod records;
pub mod redis;
pub mod resilience;
mod secret;
mod threads;
pub mod tls;
mod transfer;
mod vectors;

pub use cached::{CachedEmbedder, CachedVectors};
pub use catalogue::{Catalogue, CatalogueError, ModelInfo, Prices};
pub use chat::{ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, Message, ModelName, Passage, Role, Usage};
use error::AskedToWait;
pub use error::ServiceError;
pub use fallback::FallbackCache;
pub use provider::ProviderOptions;
pub use records::{
    ALERT_THRESHOLD_PERCENT, Alert, AlertLevel, Alerts, BillingEvent, COUNTERS, Cache, CacheState, ChatLog, ChatTurn,
    Claim, Client, ClientSettings, ClientStatus, Clients, Cost, Counted, Delivery, Document, DocumentId, DocumentPage,
    DocumentStatus, Documents, Erased, ExportedRow, Feedback, Feedbacks, FileType, MESSAGES, NamedRequest,
    NamedRequests, NamedState, Rating, Records, RequestName, Source, Staged, TenantData, Tier, Unfinished, UsageBook,
    UsageDay, UsageHour,
};
pub use secret::Secret;
pub use threads::{ThreadChange, ThreadRecord, Threads};
pub use transfer::{Revector, Transfer, Transferred, VectorCatalog};
pub use vectors::{Chunk, Embedder, Hit, KnowledgeBase, Purpose, SearchQuery, VectorStore, point_id};

/// A time of day, in UTC.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
