//! Dense vectors.

use async_trait::async_trait;
use stepgraph::TenantId;

use super::{
    Endpoint, SERVICE,
    transport::explain,
    wire::{EmbeddingBody, Embeddings},
};
use crate::service::{
    Embedder, ModelName, Purpose, ServiceError,
    provider::{ProviderOptions, corrupt},
    resilience::batches,
};

/// [`Embedder`] over any provider that speaks the protocol of `OpenAI`. Its models embed questions and documents alike.
#[derive(Debug, Clone)]
pub struct OpenAiEmbedder {
    endpoint: Endpoint,
    model: ModelName,
    dimension: u32,
}

impl OpenAiEmbedder {
    /// An embedder with `model`, whose vectors have `dimension` numbers.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`] when the base URL or the key cannot work.
    pub fn new(options: &ProviderOptions, model: ModelName, dimension: u32) -> Result<Self, ServiceError> {
        Ok(Self {
            endpoint: Endpoint::new(options)?,
            model,
            dimension,
        })
    }

    async fn batch(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, ServiceError> {
        let Endpoint { client, http, .. } = &self.endpoint;
        let body = EmbeddingBody {
            model: self.model.as_str(),
            input: texts,
            encoding_format: "float",
        };
        let embeddings = client.embeddings();
        let answer = embeddings.create_byot::<_, Embeddings>(body).await;
        let answer = answer.map_err(|error| explain(http, error))?;
        self.in_order(answer, texts.len())
    }

    fn in_order(&self, mut answer: Embeddings, expected: usize) -> Result<Vec<Vec<f32>>, ServiceError> {
        answer.data.sort_by_key(|embedding| embedding.index);
        let complete = answer.data.len() == expected
            && answer
                .data
                .iter()
                .enumerate()
                .all(|(at, embedding)| embedding.index == at);
        if !complete {
            return Err(corrupt(
                SERVICE,
                format!("{} vectors came for {expected} texts", answer.data.len()),
            ));
        }
        let dimension = usize::try_from(self.dimension).unwrap_or(usize::MAX);
        answer
            .data
            .into_iter()
            .map(|embedding| self.of_dimension(embedding.embedding, dimension))
            .collect()
    }

    fn of_dimension(&self, vector: Vec<f32>, dimension: usize) -> Result<Vec<f32>, ServiceError> {
        if vector.iter().any(|number| !number.is_finite()) {
            return Err(corrupt(
                SERVICE,
                format!("`{}` gave a vector with a number that is none", self.model),
            ));
        }
        if vector.len() == dimension {
            return Ok(vector);
        }
        let message = format!(
            "`{}` gives {} numbers a vector, not {dimension}: set its dimension, and embed what is in already anew with `stepgraph reindex`",
            self.model,
            vector.len()
        );
        Err(ServiceError::Mismatch {
            service: SERVICE,
            message,
        })
    }
}

#[async_trait]
impl Embedder for OpenAiEmbedder {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn dimension(&self) -> u32 {
        self.dimension
    }

    async fn embed(
        &self,
        _tenant: &TenantId,
        _purpose: Purpose,
        texts: &[String],
    ) -> Result<Vec<Vec<f32>>, ServiceError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in batches(texts) {
            vectors.extend(self.batch(batch).await?);
        }
        Ok(vectors)
    }
}
