//! What the server stands on: services, the two graphs behind traits, and its own settings.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use stepgraph::RunId;
pub use stepgraph_nodes::generate::Answer;
use stepgraph_nodes::service::{
    Alerts, Cache, ChatLog, ChatModel, Client, Clients, Document, Documents, Embedder, Feedbacks, ModelName,
    NamedRequests, Secret, VectorStore,
};
use stepgraph_nodes::trace::TraceParent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    error::ErrorCode,
    jobs::{Dispatch, IngestJob},
    metrics::Metrics,
};

/// Most tokens of an answer, where the tenant has no number of its own.
pub(crate) const COMPLETION_TOKENS_MAX: u32 = 1_000;

/// Everything the server needs from the rooms below it.
#[derive(Clone)]
pub struct Backend {
    /// Who may ask.
    pub clients: Arc<dyn Clients>,
    /// Documents and how far they have come.
    pub documents: Arc<dyn Documents>,
    /// Where chats are deleted that are older than they may be.
    pub log: Arc<dyn ChatLog>,
    /// That tenants come near their limits.
    pub alerts: Arc<dyn Alerts>,
    /// What readers thought of answers.
    pub feedbacks: Arc<dyn Feedbacks>,
    /// Requests that their callers have named, with their answers.
    pub named: Arc<dyn NamedRequests>,
    /// Makes vectors for whoever asks at `/embed`, where one is configured.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// Where a deleted document's chunks are removed.
    pub vectors: Arc<dyn VectorStore>,
    /// Counters of the hourly limit.
    pub cache: Arc<dyn Cache>,
    /// The configured chat models; asked by `/health` whether they answer.
    pub models: Vec<Arc<dyn ChatModel>>,
    /// Answers chat messages.
    pub chat: Arc<dyn ChatRunner>,
    /// Ingests documents.
    pub ingest: Arc<dyn IngestRunner>,
    /// Keeps the jobs of documents to ingest.
    pub dispatch: Arc<dyn Dispatch>,
    /// Counts what is done, for `/metrics`.
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models: Vec<_> = self.models.iter().map(|model| model.provider()).collect();
        f.debug_struct("Backend")
            .field("models", &models)
            .finish_non_exhaustive()
    }
}

/// Settings of the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// What trusted callers send in `X-Internal-Secret`; without it only public keys are served.
    pub internal_secret: Option<Secret>,
    /// Limits by tier.
    pub limits: Limits,
    /// The model a tenant of the free tier gets unless it chose one.
    pub free_model: ModelName,
    /// The model a tenant of the paid tier gets unless it chose one.
    pub paid_model: ModelName,
    /// The origin that hears of documents' progress, `https://host` without a path.
    pub progress_callback: Option<String>,
    /// Hosts that call-backs and webhooks may reach by http or inside the operator's network, `host` or `host:port`. All
    /// others must be public and are called by https.
    pub callback_hosts: Vec<String>,
    /// Hosts of the pages from which the free tier may be used, written as tenants write their domains; empty for all.
    pub dashboard_hosts: Vec<String>,
    /// Where a tenant of the free tier can get more; told with each refusal by a limit.
    pub upgrade_url: Option<String>,
    /// How long an answer may take before it is ended with what there is.
    pub answer_budget: Duration,
    /// How long `/process-document` waits before it answers that work goes on.
    pub document_wait: Duration,
    /// How long a stop waits for open answers and jobs.
    pub drain_limit: Duration,
    /// Documents ingested at the same time.
    pub ingest_concurrency: usize,
    /// Days after which chats leave the log, unless a tenant says otherwise; `None` keeps them.
    pub retention_days: Option<u32>,
    /// The page at `/demo`, where it is wanted.
    pub demo: Option<Demo>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            internal_secret: None,
            limits: Limits::default(),
            free_model: ModelName::new("gpt-4o-mini"),
            paid_model: ModelName::new("claude-sonnet-4-5-20250514"),
            progress_callback: None,
            callback_hosts: Vec::new(),
            dashboard_hosts: Vec::new(),
            upgrade_url: None,
            answer_budget: Duration::from_secs(28),
            document_wait: Duration::from_secs(20),
            drain_limit: Duration::from_secs(30),
            ingest_concurrency: 2,
            retention_days: None,
            demo: None,
        }
    }
}

/// What each tier may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Chat messages in a window, free tier.
    pub free_messages: u64,
    /// Chat messages in a window, paid tier.
    pub paid_messages: u64,
    /// Length of the window; windows begin at multiples of it.
    pub window: Duration,
    /// Documents kept, free tier.
    pub free_documents: u64,
    /// Documents kept, paid tier.
    pub paid_documents: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            free_messages: 100,
            paid_messages: 1_000,
            window: Duration::from_hours(1),
            free_documents: 10,
            paid_documents: 100,
        }
    }
}

/// What the demo page is filled with.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The public key of the demo tenant; the page holds it in clear.
    pub public_key: String,
    /// What the page is headed with.
    pub title: String,
    /// Questions to begin with.
    pub questions: Vec<String>,
}

/// One message to answer.
#[derive(Debug, Clone)]
pub struct ChatCommand {
    /// Names the run and the trace. A repeat after a failure carries the id of the failed run.
    pub run: RunId,
    /// Whether this goes on with a failed run of the same id.
    pub repeat: bool,
    /// Who asks: tenant, tier, model, instructions.
    pub client: Client,
    /// The chat session, as the caller sent it.
    pub session: String,
    /// What is asked.
    pub message: String,
    /// What the caller says about the visitor.
    pub metadata: Map<String, Value>,
    /// The caller's trace, sent on to whoever is called for the answer.
    pub trace: Option<TraceParent>,
    /// When the message was accepted.
    pub asked_at: DateTime<Utc>,
    /// Whether it is above the tenant's limit, and booked as such.
    pub overage: bool,
    /// How long the answer may take. When it is over the runner ends the answer with what there is and the
    /// finish reason [`TimeBudget`](stepgraph_nodes::service::FinishReason::TimeBudget).
    pub budget: Duration,
}

/// What a run says while it goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ChatEvent {
    /// The next piece of the answer.
    Text(String),
    /// The answer is whole and kept; what follows in the run is no business of the caller.
    Answered(Answer),
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ChatFailure {
    /// What the caller decides by.
    pub code: ErrorCode,
    /// Fit for a visitor's eyes: widgets print it.
    pub message: String,
    /// How long a provider asks to wait.
    pub retry_after: Option<Duration>,
}

impl ChatFailure {
    /// A failure with its message for the visitor.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }
}

/// Where a run's events go. Nobody needs to listen: a run goes on without readers.
#[derive(Debug, Clone)]
pub struct ChatEvents(mpsc::Sender<ChatEvent>);

impl ChatEvents {
    /// A sender and its receiving end; `capacity` events wait at most, then senders do.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<ChatEvent>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Passes an event on; waits while too many are unread.
    pub async fn send(&self, event: ChatEvent) {
        // A receiver that is gone means that the server has given the run up; the run itself decides by its token.
        let _ = self.0.send(event).await;
    }
}

/// Answers chat messages: the seam between the server and the chat graph.
#[async_trait]
pub trait ChatRunner: Send + Sync + 'static {
    /// Runs one message to its end, the log included. [`ChatEvent::Answered`] is sent as soon as the answer is
    /// kept, before it is logged. The server owns the call, not the request: it is dropped only when the process ends.
    ///
    /// `cancel` means that nobody waits for the answer any more. It stops a run that has not answered; one that has is
    /// finished all the same.
    ///
    /// # Errors
    /// Without an [`ChatEvent::Answered`] before it, the caller gets the error; after it, only the log does.
    async fn run(&self, command: ChatCommand, events: ChatEvents, cancel: CancellationToken)
    -> Result<(), ChatFailure>;

    /// The answer of this run, where it is the newest of its session.
    ///
    /// # Errors
    /// It cannot be looked for.
    async fn answered(&self, client: &Client, session: &str, run: RunId) -> Result<Option<Answer>, ChatFailure>;

    /// Finishes the runs that an earlier process has left behind. Called once, at the start.
    ///
    /// # Errors
    /// Says why none could be found out; a single run that fails is logged and left.
    async fn finish_unfinished(&self, stop: CancellationToken) -> Result<(), ChatFailure>;
}

/// Why a document was not ingested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct IngestFailure {
    /// Stable, for programs: `parse::encrypted`.
    pub code: String,
    /// Fit for the owner of the document.
    pub message: String,
    /// Whether the same may work later.
    pub again: Again,
}

/// Whether trying again makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// What failed may pass.
    Later,
    /// The document itself is the reason.
    Never,
}

/// Hears of every change to a document's record while it is ingested.
#[async_trait]
pub trait Progress: Send + Sync {
    /// The record as it now stands.
    async fn report(&self, document: &Document);
}

/// Ingests documents: the seam between the server and the ingestion graph.
#[async_trait]
pub trait IngestRunner: Send + Sync + 'static {
    /// Brings the document to `completed`, from wherever an earlier run of the same version has left it. The record
    /// is written by the runner, but for status `failed`, which the server decides on.
    ///
    /// # Errors
    /// Says whether trying again makes sense.
    async fn run(
        &self,
        job: &IngestJob,
        progress: &dyn Progress,
        cancel: CancellationToken,
    ) -> Result<(), IngestFailure>;
}
