//! Chunks in an `SQLite` file of their own: an inverted index for words, exact cosine for dense vectors, and both fused.
//!
//! Every table begins with the tenant, and so does every condition; how rare a word is and how long a chunk is on
//! average are counted inside the tenant alone. One connection writes, `BEGIN IMMEDIATE`, so that writers queue instead
//! of failing; readers go on beside it on the snapshot that WAL gives them.

mod bm25;
mod catalog;
mod dense;
mod fusion;
mod indexed;
mod inverted;
mod postings;
mod read;
mod reindex;
mod write;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use stepgraph::TenantId;
use uuid::Uuid;

use crate::{
    language::{Analyzer, Language},
    service::{
        Chunk, DocumentId, Hit, KnowledgeBase, ModelName, SearchQuery, ServiceError, VectorStore, point_id,
        vectors::embedding_name,
    },
};

// What every store of chunks shares, wherever it keeps them.
pub use self::reindex::{Reindex, Reindexed};
pub(in crate::service) use self::{
    bm25::{B, CHUNKS_TELLING, K1, idf},
    dense::unit,
    indexed::Indexed,
    read::wrong_vector,
    write::check as check_chunks,
};

const SERVICE: &str = "vector store";

/// How long a call waits for another process that writes, before it says so.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Searches that run at the same time; more of them wait for a connection.
const READERS_MAX: u32 = 4;

/// Rows one statement writes: enough that preparing it costs nothing beside them, far below `SQLite`'s limit of
/// 32,766 bound values.
const ROWS_PER_STATEMENT: usize = 256;

/// Chunks and their index in one `SQLite` file. Clones share it.
#[derive(Debug, Clone)]
pub struct SqliteVectors {
    writer: SqlitePool,
    readers: SqlitePool,
    analyzers: Arc<Mutex<HashMap<&'static str, Arc<Analyzer>>>>,
    dense_weight: f32,
}

/// A tenant as it is stored.
#[derive(Debug, Clone)]
struct Tenant {
    id: i64,
    base: KnowledgeBase,
    totals: bm25::Totals,
    next_chunk: u32,
}

#[derive(sqlx::FromRow)]
struct TenantRow {
    id: i64,
    language: String,
    model: Option<String>,
    dimension: Option<i64>,
    chunks: i64,
    terms: i64,
    next_chunk: i64,
}

impl SqliteVectors {
    /// Opens the file, and makes it where there is none. Its folder must exist.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, ServiceError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await;
        let writer = writer.map_err(database)?;
        let mut migrator = sqlx::migrate!("./migrations/vectors");
        migrator.dangerous_set_table_name("_vectors_migrations");
        migrator.run(&writer).await.map_err(|error| ServiceError::Mismatch {
            service: SERVICE,
            message: format!("its file cannot be brought to this version: {error}; use the program that wrote it"),
        })?;
        let readers = SqlitePoolOptions::new().max_connections(READERS_MAX);
        Ok(Self {
            writer,
            readers: readers.connect_with(options.read_only(true)).await.map_err(database)?,
            analyzers: Arc::default(),
            dense_weight: 1.0,
        })
    }

    /// How much the ranks of dense search count beside those of words, 0 to 1; 1 unless set. A weak embedding model
    /// ranks worse than words do, and at full weight takes good answers down with it: measure, then lower it.
    pub fn with_dense_weight(self, weight: f32) -> Result<Self, ServiceError> {
        if !(0.0..=1.0).contains(&weight) {
            return Err(refused(format!("a dense weight of {weight} is outside 0 to 1")));
        }
        Ok(Self {
            dense_weight: weight,
            ..self
        })
    }

    /// The analyzer of a language code, made once: its stop words take longer to load than a question to analyse.
    fn analyzer(&self, code: &str) -> Result<Arc<Analyzer>, ServiceError> {
        let language = Language::parse(code).map_err(|unknown| corrupt(unknown.to_string()))?;
        let mut analyzers = self.analyzers.lock().unwrap_or_else(PoisonError::into_inner);
        let analyzer = analyzers
            .entry(language.code())
            .or_insert_with(|| Arc::new(Analyzer::new(language)));
        Ok(Arc::clone(analyzer))
    }
}

#[async_trait]
impl VectorStore for SqliteVectors {
    async fn prepare(&self, tenant: &TenantId, proposal: &KnowledgeBase) -> Result<KnowledgeBase, ServiceError> {
        let language = Language::parse(&proposal.language).map_err(|unknown| refused(unknown.to_string()))?;
        let (model, dimension) = proposal
            .embedding
            .as_ref()
            .map(|(model, length)| (model.as_str(), *length))
            .unzip();
        sqlx::query("INSERT INTO tenant (name, language, model, dimension) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(tenant.as_str())
            .bind(language.code())
            .bind(model)
            .bind(dimension)
            .execute(&self.writer)
            .await
            .map_err(database)?;
        let stored = self.knowledge_base(tenant).await?.ok_or_else(|| unprepared(tenant))?;
        if stored.embedding == proposal.embedding {
            return Ok(stored);
        }
        Err(other_embedding(stored.embedding.as_ref(), proposal.embedding.as_ref()))
    }

    async fn knowledge_base(&self, tenant: &TenantId) -> Result<Option<KnowledgeBase>, ServiceError> {
        let mut connection = self.readers.acquire().await.map_err(database)?;
        Ok(read::tenant(&mut connection, tenant).await?.map(|tenant| tenant.base))
    }

    async fn replace(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        chunks: &[Chunk],
    ) -> Result<Vec<Uuid>, ServiceError> {
        write::replace(self, tenant, &[(document, chunks)]).await?;
        Ok(point_ids(tenant, document, chunks))
    }

    async fn replace_many(
        &self,
        tenant: &TenantId,
        documents: &[(DocumentId, Vec<Chunk>)],
    ) -> Result<Vec<Vec<Uuid>>, ServiceError> {
        let borrowed: Vec<_> = documents
            .iter()
            .map(|(document, chunks)| (document, chunks.as_slice()))
            .collect();
        write::replace(self, tenant, &borrowed).await?;
        Ok(borrowed
            .iter()
            .map(|(document, chunks)| point_ids(tenant, document, chunks))
            .collect())
    }

    async fn search(&self, tenant: &TenantId, query: &SearchQuery) -> Result<Vec<Hit>, ServiceError> {
        read::search(self, tenant, query).await
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<u64, ServiceError> {
        write::delete(self, tenant, document).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        write::erase(self, tenant).await
    }

    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let mut connection = self.readers.acquire().await.map_err(database)?;
        Ok(read::tenant(&mut connection, tenant)
            .await?
            .map_or(0, |tenant| tenant.totals.chunks))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        sqlx::query("SELECT 1 FROM tenant LIMIT 1")
            .fetch_optional(&self.readers)
            .await
            .map(drop)
            .map_err(database)
    }
}

fn point_ids(tenant: &TenantId, document: &DocumentId, chunks: &[Chunk]) -> Vec<Uuid> {
    chunks
        .iter()
        .map(|chunk| point_id(tenant, document, chunk.index))
        .collect()
}

impl TryFrom<TenantRow> for Tenant {
    type Error = ServiceError;

    fn try_from(row: TenantRow) -> Result<Self, ServiceError> {
        let dimension = row.dimension.map(number).transpose()?;
        Ok(Self {
            id: row.id,
            base: KnowledgeBase {
                language: row.language,
                embedding: row.model.map(ModelName::new).zip(dimension),
            },
            totals: bm25::Totals {
                chunks: number(row.chunks)?,
                terms: number(row.terms)?,
            },
            next_chunk: number(row.next_chunk)?,
        })
    }
}

/// A stored integer as what it stands for.
fn number<N: TryFrom<i64>>(stored: i64) -> Result<N, ServiceError> {
    N::try_from(stored).map_err(|_| corrupt(format!("the number {stored} is out of range")))
}

pub(in crate::service) fn unprepared(tenant: &TenantId) -> ServiceError {
    refused(format!(
        "the knowledge base of `{tenant}` is not prepared: call `prepare` before the first document"
    ))
}

fn refused(message: String) -> ServiceError {
    ServiceError::Refused {
        service: SERVICE,
        message,
    }
}

fn mismatch(difference: &str) -> ServiceError {
    ServiceError::Mismatch {
        service: SERVICE,
        message: format!("{difference}: set that model again, or embed all chunks anew with `stepgraph reindex`"),
    }
}

fn other_embedding(stored: Option<&(ModelName, u32)>, asked: Option<&(ModelName, u32)>) -> ServiceError {
    let (holds, asked) = (embedding_name(stored), embedding_name(asked));
    mismatch(&format!("its chunks are embedded with {holds}, not {asked}"))
}

fn corrupt(message: String) -> ServiceError {
    ServiceError::Corrupt {
        service: SERVICE,
        message,
    }
}

/// What the database says, in this service's words.
fn database(error: sqlx::Error) -> ServiceError {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => corrupt(error.to_string()),
        _ => ServiceError::Unavailable {
            service: SERVICE,
            message: format!("{error}; look at the rights and the free space of the data folder"),
            source: Some(Box::new(error)),
        },
    }
}

/// Work that would hold up other requests, done on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ServiceError::Unavailable {
            service: SERVICE,
            message: "its work was cut off".to_owned(),
            source: Some(Box::new(error)),
        })
}

/// A list as one bound value: `SQLite` reads it back with `json_each`, so that the statement never changes.
fn json<T: serde::Serialize>(list: &[T]) -> Result<String, ServiceError> {
    serde_json::to_string(list).map_err(|error| refused(format!("a name cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests;
