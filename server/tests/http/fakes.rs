//! Stand-ins for the two graphs, which do as a test tells them. All services under them are the embedded ones.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use stepgraph::RunId;
use stepgraph_nodes::{
    service::{Chunk, Client, DocumentStatus, Documents, FinishReason, ModelName, Source, Staged, Usage, VectorStore},
    trace::{self, TraceParent},
};
use stepgraph_server::{
    Again, Answer, ChatCommand, ChatEvent, ChatEvents, ChatFailure, ChatRunner, ErrorCode, IngestFailure, IngestJob,
    IngestRunner, Progress,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// What a fake run does, in order.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Say(&'static str),
    Answer(&'static str),
    Fail(ErrorCode),
    /// Says this again and again until it is cancelled.
    SayForEver(&'static str),
    /// Waits for a permit of the gate, or for its cancellation.
    Gate,
    Panic,
}

/// A chat runner that follows a script for each message.
pub(crate) struct FakeChat {
    pub(crate) scripts: Mutex<HashMap<String, Vec<Vec<Step>>>>,
    pub(crate) commands: Mutex<Vec<ChatCommand>>,
    pub(crate) gate: Semaphore,
    /// Pieces said by `SayForEver`.
    pub(crate) said: AtomicUsize,
    pub(crate) begun: watch::Sender<usize>,
    pub(crate) ended: watch::Sender<usize>,
    pub(crate) cancelled: watch::Sender<usize>,
}

impl Default for FakeChat {
    fn default() -> Self {
        Self {
            scripts: Mutex::default(),
            commands: Mutex::default(),
            gate: Semaphore::new(0),
            said: AtomicUsize::new(0),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            cancelled: watch::Sender::new(0),
        }
    }
}

impl FakeChat {
    /// The next runs of this message do this; a script is used once, then greets.
    pub(crate) fn script(&self, message: &str, steps: &[Step]) {
        self.scripts
            .lock()
            .unwrap()
            .entry(message.to_owned())
            .or_default()
            .push(steps.to_vec());
    }

    pub(crate) fn runs(&self) -> usize {
        self.commands.lock().unwrap().len()
    }

    pub(crate) async fn reaches(counter: &watch::Sender<usize>, count: usize) {
        counter.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    fn next_script(&self, message: &str) -> Vec<Step> {
        let mut scripts = self.scripts.lock().unwrap();
        match scripts.get_mut(message) {
            Some(waiting) if !waiting.is_empty() => waiting.remove(0),
            _ => vec![Step::Say("Hello"), Step::Say(" world"), Step::Answer("Hello world")],
        }
    }
}

pub(crate) fn answer(text: &str) -> Answer {
    let source = Source {
        document_id: "guide".to_owned(),
        title: "Guide".to_owned(),
        excerpt: "two years".to_owned(),
        score: 0.5,
        chunk_index: 3,
    };
    Answer {
        text: text.to_owned(),
        sources: vec![source],
        usage: Usage {
            prompt_tokens: 10,
            completion_tokens: 2,
            ..Usage::default()
        },
        model: ModelName::new("fake"),
        finish_reason: FinishReason::Stop,
    }
}

#[async_trait]
impl ChatRunner for FakeChat {
    async fn run(
        &self,
        command: ChatCommand,
        events: ChatEvents,
        cancel: CancellationToken,
    ) -> Result<(), ChatFailure> {
        let steps = self.next_script(&command.message);
        self.commands.lock().unwrap().push(command);
        self.begun.send_modify(|count| *count += 1);
        for step in steps {
            match step {
                Step::Say(text) => events.send(ChatEvent::Text(text.to_owned())).await,
                Step::SayForEver(text) => {
                    while !cancel.is_cancelled() {
                        events.send(ChatEvent::Text(text.to_owned())).await;
                        self.said.fetch_add(1, Ordering::SeqCst);
                    }
                    self.cancelled.send_modify(|count| *count += 1);
                    return Err(ChatFailure::new(ErrorCode::ProcessingError, "cancelled"));
                }
                Step::Answer(text) => events.send(ChatEvent::Answered(answer(text))).await,
                Step::Fail(code) => return Err(ChatFailure::new(code, "it went wrong")),
                Step::Gate => tokio::select! {
                    permit = self.gate.acquire() => permit.unwrap().forget(),
                    () = cancel.cancelled() => {
                        self.cancelled.send_modify(|count| *count += 1);
                        return Err(ChatFailure::new(ErrorCode::ProcessingError, "cancelled"));
                    }
                },
                Step::Panic => panic!("the script says so"),
            }
        }
        self.ended.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn answered(&self, _: &Client, _: &str, _: RunId) -> Result<Option<Answer>, ChatFailure> {
        Ok(None)
    }

    async fn finish_unfinished(&self, _: CancellationToken) -> Result<(), ChatFailure> {
        Ok(())
    }
}

/// An ingestion that reads its orders from the file: `refuse`, `flaky`, `gate`; anything else becomes three chunks.
pub(crate) struct FakeIngest {
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) vectors: Arc<dyn VectorStore>,
    pub(crate) tries: AtomicUsize,
    /// Of each try the trace that it is part of.
    pub(crate) traces: Mutex<Vec<Option<TraceParent>>>,
    pub(crate) gate: Semaphore,
    pub(crate) begun: watch::Sender<usize>,
}

impl FakeIngest {
    pub(crate) fn new(documents: Arc<dyn Documents>, vectors: Arc<dyn VectorStore>) -> Self {
        Self {
            documents,
            vectors,
            tries: AtomicUsize::new(0),
            traces: Mutex::default(),
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
        }
    }
}

#[async_trait]
impl IngestRunner for FakeIngest {
    async fn run(
        &self,
        job: &IngestJob,
        progress: &dyn Progress,
        cancel: CancellationToken,
    ) -> Result<(), IngestFailure> {
        let tries = self.tries.fetch_add(1, Ordering::SeqCst);
        self.traces.lock().unwrap().push(trace::current());
        self.begun.send_modify(|count| *count += 1);
        let failed = |again| IngestFailure {
            code: "parse::refused".to_owned(),
            message: "the file is no good".to_owned(),
            again,
        };
        let file = self
            .documents
            .staged(&job.tenant, &job.document, job.version, Staged::File)
            .await
            .unwrap()
            .unwrap();
        match file.as_slice() {
            b"refuse" => return Err(failed(Again::Never)),
            b"flaky" if tries == 0 => return Err(failed(Again::Later)),
            b"gate" => tokio::select! {
                permit = self.gate.acquire() => permit.unwrap().forget(),
                () = cancel.cancelled() => return Err(failed(Again::Later)),
            },
            _ => {}
        }
        let mut document = self.documents.get(&job.tenant, &job.document).await.unwrap().unwrap();
        document.status = DocumentStatus::Parsing;
        document.progress = 25;
        self.documents.progress(&job.tenant, &document).await.unwrap();
        progress.report(&document).await;
        let chunks: Vec<Chunk> = (0..3)
            .map(|index| Chunk {
                index,
                title: "t".to_owned(),
                text: format!("words number {index}"),
                dense: None,
            })
            .collect();
        let base = stepgraph_nodes::service::KnowledgeBase {
            language: "en".to_owned(),
            embedding: None,
        };
        self.vectors.prepare(&job.tenant, &base).await.unwrap();
        document.point_ids = self.vectors.replace(&job.tenant, &job.document, &chunks).await.unwrap();
        document.status = DocumentStatus::Completed;
        document.progress = 100;
        document.chunks_total = Some(3);
        document.chunks_processed = Some(3);
        self.documents.progress(&job.tenant, &document).await.unwrap();
        Ok(())
    }
}
