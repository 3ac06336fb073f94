//! Second stage: the text into chunks.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError, Terminal};

use super::{Desk, Job, Progress};
use crate::{
    chunk::{ChunkLimits, chunk},
    parse::Parsed,
    service::{Chunk, DocumentStatus, Documents, Staged},
};

/// What was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// How many chunks there are.
    pub chunks: u32,
}

/// Cuts the staged text and stages the chunks.
#[derive(Clone)]
pub struct CutText {
    documents: Arc<dyn Documents>,
    limits: ChunkLimits,
}

impl CutText {
    /// Cuts to `limits`.
    #[must_use]
    pub fn new(documents: Arc<dyn Documents>, limits: ChunkLimits) -> Self {
        Self { documents, limits }
    }
}

impl fmt::Debug for CutText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutText")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[stepgraph::async_trait]
impl Node for CutText {
    type Input = Job;
    type Output = Cut;
    type Event = Progress;

    async fn run(&self, job: Job, ctx: Context<Progress>) -> Result<Cut, NodeError> {
        let desk = Desk {
            documents: &self.documents,
            tenant: ctx.tenant(),
            job: &job,
        };
        let progress = Progress {
            status: DocumentStatus::Chunking,
            percent: 30,
            chunks_total: None,
            chunks_processed: None,
        };
        desk.report(progress).await?;
        ctx.emit(progress).await;
        let parsed: Parsed = desk.load(Staged::Text).await?;
        let (limits, title) = (self.limits, title(&desk.document().await?.original_name));
        let cut = tokio::task::spawn_blocking(move || {
            let pieces = chunk(&parsed, &limits).into_iter();
            pieces
                .map(|piece| Chunk {
                    index: piece.index,
                    title: title.clone(),
                    text: piece.text,
                    dense: None,
                })
                .collect::<Vec<_>>()
        });
        let chunks = cut.await.terminal()?;
        desk.keep(Staged::Chunks, &chunks).await?;
        Ok(Cut {
            chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
        })
    }
}

/// A document's title: its file name without folders and extension.
fn title(original_name: &str) -> String {
    let file = original_name.rsplit(['/', '\\']).next().unwrap_or(original_name);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    if stem.is_empty() {
        file.to_owned()
    } else {
        stem.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::title;

    #[test]
    fn a_title_is_the_file_name_without_folders_and_extension() {
        for (name, expected) in [
            ("manual.pdf", "manual"),
            ("a/b\\c d.v2.txt", "c d.v2"),
            (".env", ".env"),
            ("plain", "plain"),
        ] {
            assert_eq!(title(name), expected);
        }
    }
}
