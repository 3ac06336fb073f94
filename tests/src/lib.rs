//! The house as a test sees it: both graphs over embedded services in a folder of their own.

pub mod conformance;
pub mod crash;
pub mod fixtures;
pub mod load;
pub mod model;

use std::{path::Path, sync::Arc, time::Duration};

use stepgraph::{Graph, OnPending, Outcome, Run, RunError, RunId, TenantId, ThreadId, ThreadKey};
use stepgraph_checkpoint::Sqlite;
use stepgraph_graphs::{ChatState, ChatStateInput, IngestState, IngestStateInput, document_ingest, widget_chat};
use stepgraph_nodes::{
    Services,
    domains::Domains,
    generate::ChatSettings,
    ingest::Job,
    parse::{ParseLimits, PdfWorker},
    prompt::{PromptLimits, Scope},
    service::{
        ChatModel, Document, DocumentId, FileType, ModelName,
        embedded::{Extractive, SqliteRecords, SqliteVectors},
    },
};
use stepgraph_server::app::open_database;

/// Both graphs and what they stand on.
#[derive(Debug)]
pub struct House {
    /// The services.
    pub services: Services,
    /// The chat graph, with its checkpoints.
    pub chat: Graph<ChatState>,
    /// The ingestion graph, with its checkpoints.
    pub ingest: Graph<IngestState>,
}

/// What a test stops at.
pub type TestError = Box<dyn std::error::Error + Send + Sync>;

impl House {
    /// Opens the house in a folder; a second time, it finds what the first has left.
    pub async fn open(folder: &Path) -> Result<Self, TestError> {
        let pool = open_database(&folder.join("stepgraph.db")).await?;
        let records = Arc::new(SqliteRecords::open(pool.clone()).await?);
        let services = Services {
            vectors: Arc::new(SqliteVectors::open(folder.join("vectors.db")).await?),
            embedder: None,
            documents: records.clone(),
            log: records,
            pdf: PdfWorker::own_program(ParseLimits::default())?,
        };
        let store = Arc::new(Sqlite::new(pool).await?);
        Ok(Self {
            chat: widget_chat(&services)?.shared_checkpointer(store.clone()),
            ingest: document_ingest(&services)?.shared_checkpointer(store),
            services,
        })
    }

    /// Accepts a text as a document and ingests it.
    ///
    /// # Panics
    /// When the ingestion does not come to its end.
    pub async fn ingest_text(&self, tenant: &TenantId, id: &str, text: &str) -> Result<Document, TestError> {
        let id = DocumentId::new(id);
        let name = format!("{id}.txt");
        let document = self
            .services
            .documents
            .accept(tenant, &id, &name, FileType::Txt, text.as_bytes())
            .await?;
        let job = Job {
            document: id.clone(),
            version: document.version,
            language: None,
        };
        let thread = ThreadKey::new(tenant.clone(), ThreadId::new(format!("document:{id}"))?);
        let outcome = self
            .ingest
            .run(&thread, IngestStateInput { job })
            .on_pending(OnPending::Discard)
            .await?;
        assert!(
            matches!(outcome, Outcome::Done(_)),
            "an ingestion ends, got {outcome:?}"
        );
        Ok(self
            .services
            .documents
            .get(tenant, &id)
            .await?
            .ok_or("the document is gone")?)
    }

    /// A chat message about to be answered by `model`.
    pub fn message(&self, thread: &ThreadKey, question: &str, model: Arc<dyn ChatModel>) -> Run<ChatState> {
        let input = ChatStateInput {
            question: question.to_owned(),
            session: thread.thread.as_str().to_owned(),
            asked_at: std::time::UNIX_EPOCH.into(),
            open_ended: false,
            overage: false,
            rewrites: false,
            trace: None,
        };
        self.chat
            .run(thread, input)
            .id(RunId::random())
            .provide(settings(model))
    }

    /// Asks the extractive model and waits for the run's end, the log included.
    pub async fn ask(&self, thread: &ThreadKey, question: &str) -> Result<ChatState, RunError> {
        let outcome = self.message(thread, question, Arc::new(Extractive)).await?;
        Ok(outcome
            .done()
            .unwrap_or_else(|| unreachable!("the chat graph asks nothing and has no joins")))
    }
}

/// Settings of a run that uses `model`.
#[must_use]
pub fn settings(model: Arc<dyn ChatModel>) -> ChatSettings {
    ChatSettings {
        name: ModelName::new(model.provider()),
        model,
        system_prompt: None,
        scope: Scope::Documents,
        prompt: PromptLimits::default(),
        link_hosts: Domains::default(),
        completion_tokens_max: 500,
        temperature: Some(0.0),
        fallback: None,
        prices: Arc::default(),
        answer_by: tokio::time::Instant::now() + Duration::from_secs(20),
    }
}

/// A tenant, as authentication would name it.
///
/// # Panics
/// When the name is no tenant id.
#[must_use]
#[expect(clippy::expect_used, reason = "names in tests are written by hand")]
pub fn tenant(name: &str) -> TenantId {
    TenantId::authenticated(name).expect("a valid tenant id")
}

/// A chat session of a tenant.
///
/// # Panics
/// When the name is no thread id.
#[must_use]
#[expect(clippy::expect_used, reason = "names in tests are written by hand")]
pub fn session(tenant: &TenantId, name: &str) -> ThreadKey {
    ThreadKey::new(tenant.clone(), ThreadId::new(name).expect("a valid thread id"))
}
