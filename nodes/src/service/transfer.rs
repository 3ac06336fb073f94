//! Filling one store of chunks from another: to move to a server, or into a collection of another embedding model.

use std::{collections::HashSet, fmt, ops::ControlFlow, sync::Arc};

use async_trait::async_trait;
use stepgraph::TenantId;

use super::{
    Chunk, DocumentId, DocumentStatus, Documents, Embedder, KnowledgeBase, Purpose, ServiceError, VectorStore,
};

/// Texts embedded by one call.
const TEXTS_PER_CALL: usize = 64;

/// A store of chunks that can be read out.
#[async_trait]
pub trait VectorCatalog: VectorStore {
    /// Every tenant that has a knowledge base, by name.
    async fn tenants(&self) -> Result<Vec<TenantId>, ServiceError>;

    /// The tenant's documents that have chunks, by id.
    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, ServiceError>;

    /// A document's chunks with their vectors, by index.
    async fn chunks(&self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<Chunk>, ServiceError>;
}

/// What is to be done with the vectors on the way.
#[derive(Clone)]
pub enum Revector {
    /// They stay as they are.
    Keep,
    /// Every chunk is embedded anew by this model; without one the chunks lose their vectors.
    Embed(Option<Arc<dyn Embedder>>),
}

impl fmt::Debug for Revector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("Keep"),
            Self::Embed(embedder) => f
                .debug_tuple("Embed")
                .field(&embedder.as_ref().map(|embedder| embedder.model()))
                .finish(),
        }
    }
}

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Tenants that are whole.
    pub tenants: u64,
    /// Documents that are whole.
    pub documents: u64,
    /// Chunks of them.
    pub chunks: u64,
    /// Of these, chunks that were there already and were left as they are.
    pub kept: u64,
}

/// A transfer that can be begun again where it was cut off.
pub struct Transfer<'a> {
    /// Where the chunks are. Only read.
    pub from: &'a dyn VectorCatalog,
    /// Where they are to be.
    pub to: &'a dyn VectorCatalog,
    /// The records: a document that only `to` has, and that they know as finished, is somebody's and stays.
    pub records: &'a dyn Documents,
    /// What becomes of the vectors.
    pub revector: Revector,
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("from", &self.from.provider())
            .field("to", &self.to.provider())
            .field("revector", &self.revector)
            .finish_non_exhaustive()
    }
}

impl Transfer<'_> {
    /// Chunks of all tenants, to know how long it will take.
    ///
    /// # Errors
    /// What the store says.
    pub async fn chunks(&self) -> Result<u64, ServiceError> {
        let mut chunks = 0_u64;
        for tenant in self.from.tenants().await? {
            chunks = chunks.saturating_add(self.from.count(&tenant).await?);
        }
        Ok(chunks)
    }

    /// Makes `to` hold what `from` holds, tenant by tenant, and checks the counts of each. Begun again after an
    /// interruption it goes on: what is whole is compared and kept. `told` hears of every document and may stop the work;
    /// then `None` comes back.
    ///
    /// # Errors
    /// What either store or the model says, or that the counts differ: documents were changed meanwhile.
    pub async fn run(
        &self,
        told: &(dyn Fn(Transferred) -> ControlFlow<()> + Sync),
    ) -> Result<Option<Transferred>, ServiceError> {
        let mut done = Transferred::default();
        for tenant in self.from.tenants().await? {
            let Some(base) = self.from.knowledge_base(&tenant).await? else {
                continue;
            };
            self.to.prepare(&tenant, &self.revectored(base)).await?;
            let documents = self.from.documents(&tenant).await?;
            for document in &documents {
                if told(done).is_break() {
                    return Ok(None);
                }
                self.one(&tenant, document, &mut done).await?;
            }
            let others = self.others(&tenant, &documents.into_iter().collect()).await?;
            self.verify(&tenant, others).await?;
            done.tenants = done.tenants.saturating_add(1);
        }
        let _ = told(done);
        Ok(Some(done))
    }

    fn revectored(&self, base: KnowledgeBase) -> KnowledgeBase {
        match &self.revector {
            Revector::Keep => base,
            Revector::Embed(embedder) => KnowledgeBase {
                embedding: embedder
                    .as_ref()
                    .map(|embedder| (embedder.model().clone(), embedder.dimension())),
                ..base
            },
        }
    }

    async fn one(&self, tenant: &TenantId, document: &DocumentId, done: &mut Transferred) -> Result<(), ServiceError> {
        let mut chunks = self.from.chunks(tenant, document).await?;
        let count = u64::try_from(chunks.len()).unwrap_or(u64::MAX);
        let there = self.to.chunks(tenant, document).await?;
        if self.is_same(&chunks, &there) {
            done.kept = done.kept.saturating_add(count);
        } else {
            if let Revector::Embed(embedder) = &self.revector {
                embed(tenant, embedder.as_ref(), &mut chunks).await?;
            }
            self.to.replace(tenant, document, &chunks).await?;
        }
        done.documents = done.documents.saturating_add(1);
        done.chunks = done.chunks.saturating_add(count);
        Ok(())
    }

    /// Whether the chunks are there already. The store that is filled holds vectors of one model alone, so that a chunk
    /// with the same text has the same vector.
    fn is_same(&self, chunks: &[Chunk], there: &[Chunk]) -> bool {
        let has_vector = |chunk: &Chunk| match &self.revector {
            Revector::Keep => chunk.dense.is_some(),
            Revector::Embed(embedder) => embedder.is_some(),
        };
        chunks.len() == there.len()
            && chunks.iter().zip(there).all(|(a, b)| {
                (a.index, &a.title, &a.text) == (b.index, &b.title, &b.text) && has_vector(a) == b.dense.is_some()
            })
    }

    /// Takes out what an earlier transfer has brought and `from` has no more, and says how many chunks of others stay.
    async fn others(&self, tenant: &TenantId, wanted: &HashSet<DocumentId>) -> Result<u64, ServiceError> {
        let mut stay = 0_u64;
        for document in self.to.documents(tenant).await? {
            if wanted.contains(&document) {
                continue;
            }
            let record = self.records.get(tenant, &document).await?;
            if record.is_some_and(|record| record.status == DocumentStatus::Completed) {
                let chunks = self.to.chunks(tenant, &document).await?.len();
                stay = stay.saturating_add(u64::try_from(chunks).unwrap_or(u64::MAX));
            } else {
                self.to.delete(tenant, &document).await?;
            }
        }
        Ok(stay)
    }

    async fn verify(&self, tenant: &TenantId, others: u64) -> Result<(), ServiceError> {
        let (here, there) = (self.from.count(tenant).await?, self.to.count(tenant).await?);
        if here.saturating_add(others) == there {
            return Ok(());
        }
        Err(ServiceError::Mismatch {
            service: "vector store",
            message: format!(
                "`{tenant}` has {here} chunks, and {} arrived: its documents were changed meanwhile; run the command again",
                there.saturating_sub(others)
            ),
        })
    }
}

async fn embed(
    tenant: &TenantId,
    embedder: Option<&Arc<dyn Embedder>>,
    chunks: &mut [Chunk],
) -> Result<(), ServiceError> {
    let Some(embedder) = embedder else {
        for chunk in chunks {
            chunk.dense = None;
        }
        return Ok(());
    };
    for batch in chunks.chunks_mut(TEXTS_PER_CALL) {
        let texts: Vec<String> = batch.iter().map(|chunk| chunk.text.clone()).collect();
        let mut vectors = embedder.embed(tenant, Purpose::Document, &texts).await?.into_iter();
        for chunk in batch {
            // A text without a vector keeps none of the old model's: the store refuses it.
            chunk.dense = vectors.next();
        }
    }
    Ok(())
}
