//! Last stage: the chunks become the document's whole content in the vector store.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError, TenantId};

use super::{Desk, Job, Progress};
use crate::{
    language,
    service::{Chunk, Document, DocumentStatus, Documents, Embedder, KnowledgeBase, ServiceError, Staged, VectorStore},
    trace,
};

/// Characters of text from which a language is told.
const SAMPLE_CHARS: usize = 20_000;

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// How many chunks the document has.
    pub chunks: u32,
}

/// Replaces the document's chunks by the staged ones, marks it completed and drops what was staged.
#[derive(Clone)]
pub struct StoreChunks {
    documents: Arc<dyn Documents>,
    vectors: Arc<dyn VectorStore>,
    embedder: Option<Arc<dyn Embedder>>,
}

impl StoreChunks {
    /// Stores into `vectors`; the knowledge base remembers the model of `embedder`.
    #[must_use]
    pub fn new(
        documents: Arc<dyn Documents>,
        vectors: Arc<dyn VectorStore>,
        embedder: Option<Arc<dyn Embedder>>,
    ) -> Self {
        Self {
            documents,
            vectors,
            embedder,
        }
    }

    async fn prepare(&self, tenant: &TenantId, job: &Job, chunks: &[Chunk]) -> Result<KnowledgeBase, ServiceError> {
        let language = match &job.language {
            Some(language) => language.clone(),
            None => language::detect(&sample(chunks)).code().to_owned(),
        };
        let embedding = self
            .embedder
            .as_ref()
            .map(|embedder| (embedder.model().clone(), embedder.dimension()));
        self.vectors
            .prepare(tenant, &KnowledgeBase { language, embedding })
            .await
    }
}

impl fmt::Debug for StoreChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreChunks").finish_non_exhaustive()
    }
}

#[stepgraph::async_trait]
impl Node for StoreChunks {
    type Input = Job;
    type Output = Stored;
    type Event = Progress;

    async fn run(&self, job: Job, ctx: Context<Progress>) -> Result<Stored, NodeError> {
        let desk = Desk {
            documents: &self.documents,
            tenant: ctx.tenant(),
            job: &job,
        };
        let found = desk.document().await?;
        if found.status == DocumentStatus::Completed {
            // An earlier entry of this task came so far and was cut off before its end was saved.
            return Ok(Stored {
                chunks: found.chunks_total.unwrap_or_default(),
            });
        }
        let chunks: Vec<Chunk> = desk.load(Staged::Chunks).await?;
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let progress = Progress {
            status: DocumentStatus::Storing,
            percent: 85,
            chunks_total: Some(total),
            chunks_processed: Some(0),
        };
        desk.report(progress).await?;
        ctx.emit(progress).await;
        trace::carried(&ctx, self.prepare(ctx.tenant(), &job, &chunks))
            .await
            .map_err(ServiceError::into_node_error)?;
        let points = trace::carried(&ctx, self.vectors.replace(ctx.tenant(), &job.document, &chunks))
            .await
            .map_err(ServiceError::into_node_error)?;
        let completed = Document {
            status: DocumentStatus::Completed,
            progress: 100,
            chunks_total: Some(total),
            chunks_processed: Some(total),
            point_ids: points,
            error_code: None,
            error_message: None,
            ..desk.document().await?
        };
        self.documents
            .progress(ctx.tenant(), &completed)
            .await
            .map_err(ServiceError::into_node_error)?;
        self.documents
            .unstage(ctx.tenant(), &job.document, job.version)
            .await
            .map_err(ServiceError::into_node_error)?;
        ctx.emit(Progress {
            status: DocumentStatus::Completed,
            percent: 100,
            chunks_total: Some(total),
            chunks_processed: Some(total),
        })
        .await;
        Ok(Stored { chunks: total })
    }
}

fn sample(chunks: &[Chunk]) -> String {
    chunks
        .iter()
        .flat_map(|chunk| chunk.text.chars())
        .take(SAMPLE_CHARS)
        .collect()
}
