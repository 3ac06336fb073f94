//! First stage: the text out of the file.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError};

use super::{Desk, Job, Progress};
use crate::{
    parse::{ParseError, PdfWorker, parse_bytes},
    service::{DocumentStatus, Documents, Staged},
};

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Bytes of text.
    pub text_bytes: u64,
}

/// Reads the text out of the staged file and stages it.
#[derive(Clone)]
pub struct ReadText {
    documents: Arc<dyn Documents>,
    pdf: PdfWorker,
}

impl ReadText {
    /// Reads PDFs by `pdf`, everything else in a blocking thread.
    #[must_use]
    pub fn new(documents: Arc<dyn Documents>, pdf: PdfWorker) -> Self {
        Self { documents, pdf }
    }
}

impl fmt::Debug for ReadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadText").finish_non_exhaustive()
    }
}

#[stepgraph::async_trait]
impl Node for ReadText {
    type Input = Job;
    type Output = Read;
    type Event = Progress;

    async fn run(&self, job: Job, ctx: Context<Progress>) -> Result<Read, NodeError> {
        let desk = Desk {
            documents: &self.documents,
            tenant: ctx.tenant(),
            job: &job,
        };
        let progress = Progress {
            status: DocumentStatus::Parsing,
            percent: 5,
            chunks_total: None,
            chunks_processed: None,
        };
        desk.report(progress).await?;
        ctx.emit(progress).await;
        let document = desk.document().await?;
        let parsed = parse_bytes(&self.pdf, document.file_type, desk.bytes(Staged::File).await?)
            .await
            .map_err(refused)?;
        desk.keep(Staged::Text, &parsed).await?;
        Ok(Read {
            text_bytes: u64::try_from(parsed.text.len()).unwrap_or(u64::MAX),
        })
    }
}

fn refused(error: ParseError) -> NodeError {
    if error.may_pass() {
        NodeError::retryable(error)
    } else {
        NodeError::terminal(error)
    }
}
