//! Chunks on a Qdrant server, over gRPC.
//!
//! One collection holds all tenants. Every request that reads, deletes or counts chunks carries the tenant as a filter,
//! each prefetch of a hybrid search too; requests are made in `request` alone. Words are searched by sparse vectors
//! made by our own analyzer, whose rarity the server counts inside the tenant.
//!
//! A server that is away when this is opened is connected to by the first call that finds it. A change of a document is
//! several requests: a chunk that stays is never absent meanwhile, but a reader may see new chunks beside old ones until
//! [`replace`](VectorStore::replace) returns, and a replacement that was cut off is completed by repeating it.

mod catalog;
mod collection;
mod payload;
mod read;
mod request;
mod sparse;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use moka::future;
use qdrant_client::{Qdrant, QdrantError, qdrant::PointStruct};
use stepgraph::TenantId;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{
    Chunk, DocumentId, Hit, KnowledgeBase, ModelName, SearchQuery, Secret, ServiceError, VectorStore,
    embedded::{check_chunks, unprepared},
    point_id,
};
use crate::{
    language::{Analyzer, Language},
    trace::{self, TRACEPARENT},
};

const SERVICE: &str = "qdrant";

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Points written by one request.
const POINTS_PER_REQUEST: usize = 256;
/// How many knowledge bases are remembered, and how long: they are fixed, but a tenant may be erased by another process.
const BASES_MAX: u64 = 10_000;
const BASES_TTL: Duration = Duration::from_mins(1);

/// Where the chunks are and what they are embedded with.
#[derive(Debug, Clone)]
pub struct QdrantOptions {
    /// Address of the server's gRPC port, `http://host:6334` or `https://host:6334`.
    pub url: String,
    /// Its key, where it wants one.
    pub api_key: Option<Secret>,
    /// The collection, made where there is none.
    pub collection: String,
    /// The embedding model and its dimension, fixed for the collection when it is made.
    pub embedding: Option<(ModelName, u32)>,
}

/// [`VectorStore`] over a Qdrant server, 1.17 or newer. Clones share the connection.
///
/// ```no_run
/// use stepgraph_nodes::service::qdrant::{QdrantOptions, QdrantVectors};
/// # async fn open() -> Result<(), stepgraph_nodes::service::ServiceError> {
/// let store = QdrantVectors::open(QdrantOptions {
///     url: "http://localhost:6334".to_owned(),
///     api_key: None,
///     collection: "chatconnect_documents".to_owned(),
///     embedding: None,
/// })
/// .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct QdrantVectors {
    client: Arc<Qdrant>,
    options: Arc<QdrantOptions>,
    ready: Arc<OnceCell<()>>,
    bases: future::Cache<TenantId, KnowledgeBase>,
    analyzers: Arc<Mutex<HashMap<&'static str, Arc<Analyzer>>>>,
}

impl fmt::Debug for QdrantVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QdrantVectors")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl QdrantVectors {
    /// Opens the collection, and makes it where there is none. A server that is away is no error: it is used when it comes.
    ///
    /// # Errors
    /// The address cannot be used, the server refuses the key, or the collection is of another embedding model: then
    /// another collection, filled with what this one holds, is the remedy.
    pub async fn open(options: QdrantOptions) -> Result<Self, ServiceError> {
        let store = Self::unopened(options)?;
        match store.ready().await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(code = error.code(), %error, "qdrant is not there yet: searches fail until it is");
            }
            other => other?,
        }
        Ok(store)
    }

    /// Opens a collection that is there, whatever it is embedded with: `embedding` of the options is not looked at.
    ///
    /// # Errors
    /// There is no such collection, it is not ours, or the server does not answer.
    pub async fn open_as_it_is(options: QdrantOptions) -> Result<Self, ServiceError> {
        let store = Self::unopened(options)?;
        let embedding = collection::stored_embedding(&store.calling(), &store.options).await?;
        let options = QdrantOptions {
            embedding,
            ..QdrantOptions::clone(&store.options)
        };
        let store = Self {
            options: Arc::new(options),
            ..store
        };
        store.ready().await?;
        Ok(store)
    }

    fn unopened(options: QdrantOptions) -> Result<Self, ServiceError> {
        super::tls::install();
        let client = Qdrant::from_url(&options.url)
            .api_key(options.api_key.as_ref().map(|key| key.expose().to_owned()))
            .timeout(ANSWER_LIMIT)
            .connect_timeout(CONNECT_LIMIT)
            .skip_compatibility_check()
            .build()
            .map_err(|error| {
                refused(format!(
                    "its address cannot be used ({error}): write it as http://host:6334"
                ))
            })?;
        Ok(Self {
            client: Arc::new(client),
            options: Arc::new(options),
            ready: Arc::default(),
            bases: future::Cache::builder()
                .max_capacity(BASES_MAX)
                .time_to_live(BASES_TTL)
                .build(),
            analyzers: Arc::default(),
        })
    }

    /// Sees to it that the collection is there and fits, once.
    async fn ready(&self) -> Result<(), ServiceError> {
        self.ready.get_or_try_init(|| self.ensured()).await.copied()
    }

    async fn ensured(&self) -> Result<(), ServiceError> {
        collection::ensure(&self.calling(), &self.options).await
    }

    /// The client for one call: what it sends is part of the current trace.
    fn calling(&self) -> Qdrant {
        let client = Qdrant::clone(&self.client);
        match trace::current() {
            Some(trace) => client.with_header(TRACEPARENT, trace.to_string()),
            None => client,
        }
    }

    fn name(&self) -> &str {
        &self.options.collection
    }

    /// The analyzer of a language code, made once.
    fn analyzer(&self, code: &str) -> Result<Arc<Analyzer>, ServiceError> {
        let language = Language::parse(code).map_err(|unknown| corrupt(unknown.to_string()))?;
        let mut analyzers = self.analyzers.lock().unwrap_or_else(PoisonError::into_inner);
        let analyzer = analyzers
            .entry(language.code())
            .or_insert_with(|| Arc::new(Analyzer::new(language)));
        Ok(Arc::clone(analyzer))
    }

    /// Writes new points, then removes those of the same documents that are not among them.
    async fn write(&self, tenant: &TenantId, documents: BTreeMap<DocumentId, Vec<Chunk>>) -> Result<(), ServiceError> {
        let base = self.knowledge_base(tenant).await?.ok_or_else(|| unprepared(tenant))?;
        for (document, chunks) in &documents {
            check_chunks(&base, document, chunks)?;
        }
        let names: Vec<DocumentId> = documents.keys().cloned().collect();
        let analyzer = self.analyzer(&base.language)?;
        let owner = tenant.clone();
        let points = blocking(move || points(&analyzer, &owner, documents)).await?;
        let ids: Vec<Uuid> = points.iter().map(|(id, _)| *id).collect();
        let mut points = points.into_iter().map(|(_, point)| point);
        loop {
            let batch: Vec<PointStruct> = points.by_ref().take(POINTS_PER_REQUEST).collect();
            if batch.is_empty() {
                break;
            }
            let upsert = request::upsert(self.name(), batch);
            self.calling().upsert_points(upsert).await.map_err(failed)?;
        }
        let stale = request::delete_stale(self.name(), tenant, &names, &ids);
        self.calling().delete_points(stale).await.map_err(failed)?;
        Ok(())
    }
}

#[async_trait]
impl VectorStore for QdrantVectors {
    fn provider(&self) -> &'static str {
        SERVICE
    }

    async fn prepare(&self, tenant: &TenantId, proposal: &KnowledgeBase) -> Result<KnowledgeBase, ServiceError> {
        self.ready().await?;
        let language = Language::parse(&proposal.language).map_err(|unknown| refused(unknown.to_string()))?;
        if let (Some(asked), of_collection) = (&proposal.embedding, &self.options.embedding)
            && of_collection.as_ref() != Some(asked)
            && self.knowledge_base(tenant).await?.is_none()
        {
            return Err(collection::mismatch(of_collection.as_ref(), Some(asked)));
        }
        let base = KnowledgeBase {
            language: language.code().to_owned(),
            embedding: proposal.embedding.clone(),
        };
        let insert = request::insert(self.name(), payload::base_point(tenant, &base));
        self.calling().upsert_points(insert).await.map_err(failed)?;
        self.bases.invalidate(tenant).await;
        let stored = self.knowledge_base(tenant).await?.ok_or_else(|| unprepared(tenant))?;
        if stored.embedding == proposal.embedding {
            return Ok(stored);
        }
        Err(collection::mismatch(
            stored.embedding.as_ref(),
            proposal.embedding.as_ref(),
        ))
    }

    async fn knowledge_base(&self, tenant: &TenantId) -> Result<Option<KnowledgeBase>, ServiceError> {
        if let Some(base) = self.bases.get(tenant).await {
            return Ok(Some(base));
        }
        self.ready().await?;
        let get = request::get(self.name(), payload::base_id(tenant));
        let mut found = self.calling().get_points(get).await.map_err(failed)?.result;
        let Some(point) = found.pop() else { return Ok(None) };
        let base = payload::base(&point.payload)?;
        self.bases.insert(tenant.clone(), base.clone()).await;
        Ok(Some(base))
    }

    async fn replace(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        chunks: &[Chunk],
    ) -> Result<Vec<Uuid>, ServiceError> {
        self.write(tenant, BTreeMap::from([(document.clone(), chunks.to_vec())]))
            .await?;
        Ok(point_ids(tenant, document, chunks))
    }

    async fn replace_many(
        &self,
        tenant: &TenantId,
        documents: &[(DocumentId, Vec<Chunk>)],
    ) -> Result<Vec<Vec<Uuid>>, ServiceError> {
        // Where a document stands twice, the last one holds.
        self.write(tenant, documents.iter().cloned().collect()).await?;
        let ids = documents
            .iter()
            .map(|(document, chunks)| point_ids(tenant, document, chunks));
        Ok(ids.collect())
    }

    async fn search(&self, tenant: &TenantId, query: &SearchQuery) -> Result<Vec<Hit>, ServiceError> {
        read::search(self, tenant, query).await
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<u64, ServiceError> {
        self.ready().await?;
        let filter = request::of_document(tenant, document);
        let count = self
            .calling()
            .count(request::count(self.name(), filter.clone()))
            .await
            .map_err(failed)?;
        let delete = request::delete(self.name(), filter);
        self.calling().delete_points(delete).await.map_err(failed)?;
        Ok(count.result.map_or(0, |result| result.count))
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        self.ready().await?;
        let count = request::count(self.name(), request::of_tenant(tenant));
        let count = self.calling().count(count).await.map_err(failed)?;
        for filter in [request::of_tenant(tenant), request::base_of(tenant)] {
            let delete = request::delete(self.name(), filter);
            self.calling().delete_points(delete).await.map_err(failed)?;
        }
        self.bases.invalidate(tenant).await;
        Ok(count.result.map_or(0, |result| result.count))
    }

    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        self.ready().await?;
        let count = request::count(self.name(), request::of_tenant(tenant));
        let counted = self.calling().count(count).await.map_err(failed)?;
        Ok(counted.result.map_or(0, |result| result.count))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        self.ready().await?;
        self.calling().health_check().await.map(drop).map_err(failed)
    }
}

fn point_ids(tenant: &TenantId, document: &DocumentId, chunks: &[Chunk]) -> Vec<Uuid> {
    chunks
        .iter()
        .map(|chunk| point_id(tenant, document, chunk.index))
        .collect()
}

fn points(
    analyzer: &Analyzer,
    tenant: &TenantId,
    documents: BTreeMap<DocumentId, Vec<Chunk>>,
) -> Vec<(Uuid, PointStruct)> {
    let mut points = Vec::new();
    for (document, chunks) in documents {
        for chunk in chunks {
            let id = point_id(tenant, &document, chunk.index);
            points.push((id, payload::point(analyzer, tenant, &document, id, chunk)));
        }
    }
    points
}

fn refused(message: String) -> ServiceError {
    ServiceError::Refused {
        service: SERVICE,
        message,
    }
}

fn corrupt(message: String) -> ServiceError {
    ServiceError::Corrupt {
        service: SERVICE,
        message,
    }
}

/// What the server says, in this service's words.
fn failed(error: QdrantError) -> ServiceError {
    let (code, said) = match &error {
        QdrantError::ResourceExhaustedError {
            status,
            retry_after_seconds,
        } => {
            return ServiceError::RateLimited {
                service: SERVICE,
                message: status.message().to_owned(),
                retry_after: Some(Duration::from_secs(*retry_after_seconds)),
            };
        }
        QdrantError::ResponseError { status } => (i32::from(status.code()), status.message().to_owned()),
        other => return refused(other.to_string()),
    };
    // The numbers of gRPC's status codes.
    match code {
        4 => ServiceError::Timeout {
            service: SERVICE,
            limit: ANSWER_LIMIT,
        },
        8 => ServiceError::RateLimited {
            service: SERVICE,
            message: said,
            retry_after: None,
        },
        3 | 5 | 6 | 9 | 11 | 12 => refused(said),
        7 | 16 => refused(format!("{said}: set QDRANT_API_KEY to a key that may read and write")),
        _ => ServiceError::Unavailable {
            service: SERVICE,
            message: format!("{said}; look at the server that QDRANT_URL names"),
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

#[cfg(test)]
mod tests;
