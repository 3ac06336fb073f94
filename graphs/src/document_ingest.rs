//! A document's ingestion: read the text, cut it, embed it, store it.
//!
//! ```mermaid
#![doc = include_str!("../drawings/document_ingest.mmd")]
//! ```

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::prelude::*;
use stepgraph::{BuildErrors, Retry};
use stepgraph_nodes::{
    Services,
    chunk::ChunkLimits,
    ingest::{Cut, CutText, EmbedChunks, Embedded, Job, Progress, Read, ReadText, StoreChunks, Stored},
};

/// One content of one document on its way into the knowledge base. It holds references; the payloads are staged.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Progress)]
pub struct IngestState {
    /// What is ingested.
    #[state(input)]
    job: Job,
    /// What was read out of the file.
    #[state(per_run)]
    read: Option<Read>,
    /// What its text was cut into.
    #[state(per_run)]
    cut: Option<Cut>,
    /// What was embedded.
    #[state(per_run)]
    embedded: Option<Embedded>,
    /// What was stored.
    #[state(per_run)]
    stored: Option<Stored>,
}

impl IngestState {
    /// How many chunks were stored, once they are.
    #[must_use]
    pub fn chunks(&self) -> Option<u32> {
        self.stored.map(|stored| stored.chunks)
    }
}

/// The ingestion graph over `services`.
///
/// # Errors
/// None in practice: the wiring below is tested.
pub fn document_ingest(services: &Services) -> Result<Graph<IngestState>, BuildErrors> {
    let mut g = Graph::<IngestState>::builder("document_ingest");

    let parse = g.node("parse", ReadText::new(services.documents.clone(), services.pdf.clone()));
    let chunk = g.node(
        "chunk",
        CutText::new(services.documents.clone(), ChunkLimits::default()),
    );
    let embed = g.node(
        "embed",
        EmbedChunks::new(services.documents.clone(), services.embedder.clone()),
    );
    let store = g.node(
        "store",
        StoreChunks::new(
            services.documents.clone(),
            services.vectors.clone(),
            services.embedder.clone(),
        ),
    );

    g.edge(START, parse)
        .edge(parse, chunk)
        .edge(chunk, embed)
        .edge(embed, store)
        .edge(store, END);
    for stage in [parse, chunk, embed, store] {
        g.policy(
            stage,
            Policy::new().retry(Retry::attempts(STAGE_ATTEMPTS).first_delay(Duration::from_millis(500))),
        );
    }
    g.build()
}

const STAGE_ATTEMPTS: NonZeroU32 = NonZeroU32::new(4).unwrap();

// What the stages read of this state, and how their outputs change it.

impl FromState<IngestState> for Job {
    fn from_state(state: &Arc<IngestState>) -> Self {
        state.job.clone()
    }
}

impl From<Read> for IngestStateUpdate {
    fn from(read: Read) -> Self {
        IngestState::update().read(read)
    }
}

impl From<Cut> for IngestStateUpdate {
    fn from(cut: Cut) -> Self {
        IngestState::update().cut(cut)
    }
}

impl From<Embedded> for IngestStateUpdate {
    fn from(embedded: Embedded) -> Self {
        IngestState::update().embedded(embedded)
    }
}

impl From<Stored> for IngestStateUpdate {
    fn from(stored: Stored) -> Self {
        IngestState::update().stored(stored)
    }
}
