//! What was found, kept for five minutes, and no longer than the documents it was found in.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use stepgraph::TenantId;
use uuid::Uuid;

use super::{bytes_of, digest};
use crate::service::{Cache, Chunk, DocumentId, Hit, KnowledgeBase, SearchQuery, ServiceError, VectorStore};

/// How long an answer to a search is kept.
const TTL: Duration = Duration::from_mins(5);

/// Keeps what searches found. Each change to a tenant's documents begins a new generation ([`Cache::renew`]) before it
/// returns, so that nothing found before it is found after it, in whatever process.
#[derive(Clone)]
pub struct CachedVectors {
    inner: Arc<dyn VectorStore>,
    cache: Arc<dyn Cache>,
}

impl fmt::Debug for CachedVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedVectors").finish_non_exhaustive()
    }
}

impl CachedVectors {
    /// Searches `inner` for what `cache` does not hold.
    #[must_use]
    pub fn new(inner: Arc<dyn VectorStore>, cache: Arc<dyn Cache>) -> Self {
        Self { inner, cache }
    }

    /// A change that has failed may have been made in part: the generation is renewed either way.
    async fn changed<T>(&self, tenant: &TenantId, result: Result<T, ServiceError>) -> Result<T, ServiceError> {
        self.cache.renew(tenant).await?;
        result
    }

    async fn kept(&self, tenant: &TenantId, key: &str) -> Option<Vec<Hit>> {
        let bytes = self.cache.get(tenant, key).await.ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    async fn keep(&self, tenant: &TenantId, key: &str, hits: &[Hit]) {
        let Ok(bytes) = serde_json::to_vec(hits) else { return };
        if let Err(error) = self.cache.put(tenant, key, bytes, TTL).await {
            tracing::debug!(%tenant, code = error.code(), %error, "what was found is not kept");
        }
    }
}

fn key(generation: Uuid, query: &SearchQuery) -> String {
    let dense = query.dense.as_deref().map(bytes_of);
    let limit = query.limit.to_le_bytes();
    let parts = [query.text.as_bytes(), &limit].into_iter().chain(dense.as_deref());
    format!("hits:{generation}:{}", digest(parts))
}

#[async_trait]
impl VectorStore for CachedVectors {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    async fn prepare(&self, tenant: &TenantId, proposal: &KnowledgeBase) -> Result<KnowledgeBase, ServiceError> {
        self.inner.prepare(tenant, proposal).await
    }

    async fn knowledge_base(&self, tenant: &TenantId) -> Result<Option<KnowledgeBase>, ServiceError> {
        self.inner.knowledge_base(tenant).await
    }

    async fn replace(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        chunks: &[Chunk],
    ) -> Result<Vec<Uuid>, ServiceError> {
        let result = self.inner.replace(tenant, document, chunks).await;
        self.changed(tenant, result).await
    }

    async fn replace_many(
        &self,
        tenant: &TenantId,
        documents: &[(DocumentId, Vec<Chunk>)],
    ) -> Result<Vec<Vec<Uuid>>, ServiceError> {
        let result = self.inner.replace_many(tenant, documents).await;
        self.changed(tenant, result).await
    }

    async fn search(&self, tenant: &TenantId, query: &SearchQuery) -> Result<Vec<Hit>, ServiceError> {
        // Read before the search: what a change overtakes is kept under a generation that nobody asks for any more.
        let Ok(generation) = self.cache.generation(tenant).await else {
            return self.inner.search(tenant, query).await;
        };
        let key = key(generation, query);
        if let Some(hits) = self.kept(tenant, &key).await {
            return Ok(hits);
        }
        let hits = self.inner.search(tenant, query).await?;
        self.keep(tenant, &key, &hits).await;
        Ok(hits)
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<u64, ServiceError> {
        let result = self.inner.delete(tenant, document).await;
        self.changed(tenant, result).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let result = self.inner.erase(tenant).await;
        self.changed(tenant, result).await
    }

    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        self.inner.count(tenant).await
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        self.inner.ping().await
    }
}
