//! Third stage: dense vectors for the chunks, where an embedder is configured.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError};

use super::{Desk, Job, Progress};
use crate::{
    service::{Chunk, DocumentStatus, Documents, Embedder, Purpose, ServiceError, Staged},
    trace,
};

/// Texts sent to the embedder in one call.
const BATCH: usize = 64;

/// What was embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedded {
    /// How many vectors were made.
    pub vectors: u32,
}

/// Embeds the staged chunks and stages them again, with their vectors. Without an embedder there is nothing to do: the
/// store searches by words alone.
#[derive(Clone)]
pub struct EmbedChunks {
    documents: Arc<dyn Documents>,
    embedder: Option<Arc<dyn Embedder>>,
}

impl EmbedChunks {
    /// Embeds by `embedder`, if there is one.
    #[must_use]
    pub fn new(documents: Arc<dyn Documents>, embedder: Option<Arc<dyn Embedder>>) -> Self {
        Self { documents, embedder }
    }
}

impl fmt::Debug for EmbedChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedChunks")
            .field("embedder", &self.embedder.as_ref().map(|embedder| embedder.model()))
            .finish_non_exhaustive()
    }
}

#[stepgraph::async_trait]
impl Node for EmbedChunks {
    type Input = Job;
    type Output = Embedded;
    type Event = Progress;

    async fn run(&self, job: Job, ctx: Context<Progress>) -> Result<Embedded, NodeError> {
        let Some(embedder) = &self.embedder else {
            return Ok(Embedded { vectors: 0 });
        };
        let desk = Desk {
            documents: &self.documents,
            tenant: ctx.tenant(),
            job: &job,
        };
        let mut chunks: Vec<Chunk> = desk.load(Staged::Chunks).await?;
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let mut done = 0_u32;
        for batch in chunks.chunks_mut(BATCH) {
            let progress = Progress {
                status: DocumentStatus::Embedding,
                percent: percent(40, 80, done, total),
                chunks_total: Some(total),
                chunks_processed: Some(done),
            };
            desk.report(progress).await?;
            ctx.emit(progress).await;
            let texts: Vec<String> = batch.iter().map(|chunk| chunk.text.clone()).collect();
            let vectors = trace::carried(&ctx, embedder.embed(ctx.tenant(), Purpose::Document, &texts))
                .await
                .map_err(ServiceError::into_node_error)?;
            for (chunk, vector) in batch.iter_mut().zip(vectors) {
                chunk.dense = Some(vector);
            }
            done = done.saturating_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        }
        desk.keep(Staged::Chunks, &chunks).await?;
        Ok(Embedded { vectors: total })
    }
}

/// Where `done` of `total` lies between two percentages.
fn percent(from: u8, to: u8, done: u32, total: u32) -> u8 {
    let share = u64::from(to - from) * u64::from(done) / u64::from(total.max(1));
    from.saturating_add(u8::try_from(share).unwrap_or(to - from))
}
