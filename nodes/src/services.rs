//! The services that graphs are built over, in one bundle.

use std::{fmt, sync::Arc};

use crate::{
    parse::PdfWorker,
    service::{ChatLog, Documents, Embedder, VectorStore},
};

/// Everything that the shipped graphs need. Chat models are not here: they differ by tenant and are provided to each run.
#[derive(Clone)]
pub struct Services {
    /// Chunks, searched and stored.
    pub vectors: Arc<dyn VectorStore>,
    /// Dense vectors, where they are wanted.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// Documents and the payloads of their ingestion.
    pub documents: Arc<dyn Documents>,
    /// What was said and what it cost.
    pub log: Arc<dyn ChatLog>,
    /// How PDFs are read.
    pub pdf: PdfWorker,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("embedder", &self.embedder.as_ref().map(|embedder| embedder.model()))
            .finish_non_exhaustive()
    }
}
