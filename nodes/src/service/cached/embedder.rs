//! Vectors of questions, kept for an hour.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use stepgraph::TenantId;

use super::{bytes_of, digest};
use crate::service::{Cache, Embedder, ModelName, Purpose, ServiceError};

/// How long a question's vector is kept.
const TTL: Duration = Duration::from_hours(1);

/// Keeps the vectors of questions, as bytes, under the model's name and dimension. Documents go to the model itself: each
/// is embedded once.
#[derive(Clone)]
pub struct CachedEmbedder {
    inner: Arc<dyn Embedder>,
    cache: Arc<dyn Cache>,
}

impl fmt::Debug for CachedEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedEmbedder")
            .field("model", self.inner.model())
            .finish_non_exhaustive()
    }
}

impl CachedEmbedder {
    /// Asks `inner` for what `cache` does not hold.
    #[must_use]
    pub fn new(inner: Arc<dyn Embedder>, cache: Arc<dyn Cache>) -> Self {
        Self { inner, cache }
    }

    fn key(&self, text: &str) -> String {
        format!(
            "embedding:{}:{}:{}",
            self.inner.model(),
            self.inner.dimension(),
            digest([text.as_bytes()])
        )
    }

    /// The vector that is kept, if there is one of the right length. A cache that fails is one that holds nothing.
    async fn kept(&self, tenant: &TenantId, text: &str) -> Option<Vec<f32>> {
        let bytes = self.cache.get(tenant, &self.key(text)).await.ok()??;
        let (components, rest) = bytes.as_chunks::<4>();
        let fits = rest.is_empty() && u32::try_from(components.len()).ok()? == self.inner.dimension();
        fits.then(|| {
            components
                .iter()
                .map(|component| f32::from_le_bytes(*component))
                .collect()
        })
    }

    async fn keep(&self, tenant: &TenantId, text: &str, vector: &[f32]) {
        if let Err(error) = self.cache.put(tenant, &self.key(text), bytes_of(vector), TTL).await {
            tracing::debug!(%tenant, code = error.code(), %error, "a vector is not kept");
        }
    }
}

#[async_trait]
impl Embedder for CachedEmbedder {
    fn model(&self) -> &ModelName {
        self.inner.model()
    }

    fn dimension(&self) -> u32 {
        self.inner.dimension()
    }

    async fn embed(
        &self,
        tenant: &TenantId,
        purpose: Purpose,
        texts: &[String],
    ) -> Result<Vec<Vec<f32>>, ServiceError> {
        if purpose == Purpose::Document {
            return self.inner.embed(tenant, purpose, texts).await;
        }
        let mut vectors = join_all(texts.iter().map(|text| self.kept(tenant, text))).await;
        let unknown: Vec<String> = texts
            .iter()
            .zip(&vectors)
            .filter(|(_, vector)| vector.is_none())
            .map(|(text, _)| text.clone())
            .collect();
        if !unknown.is_empty() {
            let made = self.inner.embed(tenant, purpose, &unknown).await?;
            join_all(
                unknown
                    .iter()
                    .zip(&made)
                    .map(|(text, vector)| self.keep(tenant, text, vector)),
            )
            .await;
            let mut made = made.into_iter();
            for vector in vectors.iter_mut().filter(|vector| vector.is_none()) {
                *vector = made.next();
            }
        }
        let whole: Option<Vec<_>> = vectors.into_iter().collect();
        whole.ok_or_else(|| ServiceError::Corrupt {
            service: "embedder",
            message: format!("`{}` gave fewer vectors than it was given texts", self.inner.model()),
        })
    }
}
