//! Threads as lines of JSON: written out, read in under another name, copied.

mod export;
mod import;
mod line;

use futures_core::Stream;

use self::{export::Export, import::Import};
use super::error::RunError;
use crate::{checkpoint::CheckpointError, graph::Graph, id::ThreadKey, state::State};

/// Version of the lines' form.
pub const THREAD_FORMAT: u32 = 1;

/// Why a thread was not exported or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The name to import under is taken.
    #[error("thread {thread} is there already: import under another name, or delete it first")]
    Exists {
        /// The thread.
        thread: ThreadKey,
    },
    /// The lines have a form that this program does not know.
    #[error("the lines have form {found}, and this program reads form {known}: use the program that wrote them", known = THREAD_FORMAT)]
    Format {
        /// The form they say.
        found: u32,
    },
    /// They are of another graph.
    #[error("the lines are of graph `{found}`, not of `{graph}`: import them by that graph")]
    OtherGraph {
        /// The graph that was to import them.
        graph: String,
        /// The graph that wrote them.
        found: String,
    },
    /// A line makes no sense, or stands where it cannot.
    #[error("line {line} cannot be imported: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// What the thread or its store says.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<CheckpointError> for TransferError {
    fn from(error: CheckpointError) -> Self {
        Self::Run(error.into())
    }
}

impl TransferError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "transfer::exists",
            Self::Format { .. } => "transfer::format",
            Self::OtherGraph { .. } => "transfer::other_graph",
            Self::Line { .. } => "transfer::line",
            Self::Run(error) => error.code(),
        }
    }
}

impl<S: State> Graph<S> {
    /// A thread as lines of JSON, one for each checkpoint of every branch, with those of the graphs inside it: what
    /// [`import`](Self::import) reads. It is read from the store as the stream is polled. The lines hold what the thread
    /// holds, secret fields too, but not whose it is. Export a thread while nothing runs on it.
    pub fn export(&self, thread: &ThreadKey) -> impl Stream<Item = Result<String, RunError>> + Send + use<S> {
        let export = Export::new(self, thread);
        futures_util::stream::try_unfold(export, |mut export| async move {
            Ok(export.next_line().await?.map(|line| (line, export)))
        })
    }

    /// Writes a thread that was [exported](Self::export), under a name that is not taken. Its checkpoints and runs keep
    /// their ids, so that it can be resumed and replayed; their numbers close up where some were taken out by
    /// [`thin`](fn@crate::checkpoint::thin). Such a thread, and one with tags, needs a store that can do these. Lines that
    /// cannot be imported leave nothing behind.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn import<L: AsRef<str> + Send>(
        &self,
        thread: &ThreadKey,
        lines: impl IntoIterator<Item = L, IntoIter: Send> + Send,
    ) -> Result<(), TransferError> {
        let _hold = self.idle(thread).await?;
        let mut import = Import::begin(self, thread).await?;
        let mut taken = Ok(());
        for line in lines {
            taken = import.take(line.as_ref()).await;
            if taken.is_err() {
                break;
            }
        }
        import.end(taken).await
    }

    /// Copies a thread with all its branches and the graphs inside it to another name of the same tenant.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn copy(&self, thread: &ThreadKey, to: &crate::ThreadId) -> Result<ThreadKey, TransferError> {
        let copy = ThreadKey::new(thread.tenant.clone(), to.clone());
        let _hold = self.idle(thread).await?;
        let _other = self.idle(&copy).await?;
        let mut import = Import::begin(self, &copy).await?;
        let mut export = Export::new(self, thread);
        let taken = loop {
            match export.next_line().await {
                Ok(None) => break Ok(()),
                Ok(Some(line)) => {
                    if let Err(error) = import.take(&line).await {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error.into()),
            }
        };
        import.end(taken).await.map(|()| copy)
    }
}
