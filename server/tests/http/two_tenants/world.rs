//! The whole server in this process, whose callers are two tenants.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use stepgraph::TenantId;
use stepgraph_nodes::{
    service::{
        CachedEmbedder, CachedVectors, Client, DocumentId, Hit, SearchQuery, Tier, VectorStore,
        embedded::SqliteVectors, postgres::ClientWrites, qdrant::QdrantVectors,
    },
    trace,
};
use stepgraph_server::{
    Dispatch as _, IngestJob, SqliteDispatch,
    app::{document_embedder, open_database, qdrant_options},
    config::Settings,
};
use tower::ServiceExt as _;

use super::{Marks, NAMES, TRACES, WORDS, assert_apart, hearers::Hearers, watched::Watched};
use crate::{
    house::{SECRET, request},
    whole::{self, Whole},
};

/// One message in so many operations: each tenant sends twice as many, and so comes to its limit on the way.
const OPERATIONS_PER_MESSAGE: usize = 50;

/// A call of a tenant.
#[derive(Default)]
pub(super) struct Call<'a> {
    /// `method path`, as the description of the interface has it.
    pub(super) operation: &'a str,
    pub(super) path: &'a str,
    /// With the secret in place of the tenant's key.
    pub(super) secret: bool,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: Value,
}

/// The server and its two tenants.
pub(super) struct World {
    pub(super) whole: Whole,
    pub(super) cache: Arc<Watched>,
    pub(super) hearers: Hearers,
    pub(super) marks: Marks,
    /// `method path` of all that was called.
    pub(super) called: Mutex<BTreeSet<String>>,
    hourly_limit: u64,
    calls: AtomicU64,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
}

/// What is left when it has ended: its data, and the program on them.
pub(super) struct Closed {
    pub(super) marks: Marks,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
}

async fn vectors(settings: &Settings) -> Arc<dyn VectorStore> {
    match &settings.qdrant {
        Some(server) => Arc::new(QdrantVectors::open(qdrant_options(settings, server)).await.unwrap()),
        None => Arc::new(SqliteVectors::open(settings.data.join("vectors.db")).await.unwrap()),
    }
}

impl World {
    /// A server on what the environment names, nobody's yet.
    pub(super) async fn on(folder: &Path, services: &[(&'static str, String)], operations: usize) -> Self {
        let hearers = Hearers::start().await;
        let environment = [services, &hearers.environment()].concat();
        let mut settings = whole::settings(folder, &environment);
        settings.client_writes = ClientWrites::Allowed;
        let mut installation = whole::installation(&settings).await;
        let cache = Watched::over(Arc::clone(&installation.cache));
        installation.cache = Arc::clone(&cache) as _;
        let vectors = vectors(&settings).await;
        installation.vectors = Arc::new(CachedVectors::new(vectors, Arc::clone(&installation.cache)));
        installation.embedder = document_embedder(&settings).unwrap().map(|embedder| {
            let cached = CachedEmbedder::new(embedder, Arc::clone(&installation.cache));
            Arc::new(cached) as _
        });
        Self {
            whole: Whole::on(installation, &settings).await,
            cache,
            hearers,
            marks: Marks::default(),
            called: Mutex::default(),
            hourly_limit: u64::try_from(operations / OPERATIONS_PER_MESSAGE).unwrap().max(1),
            calls: AtomicU64::new(0),
            environment,
            folder: folder.to_owned(),
        }
    }

    /// Makes the two tenants.
    pub(super) async fn admit(&mut self) {
        for (of, name) in NAMES.iter().enumerate() {
            let mut client = Client::new(TenantId::authenticated(*name).unwrap());
            client.tier = Tier::Paid;
            client.settings.hourly_limit = Some(self.hourly_limit);
            client.settings.alert_webhook = Some(self.hearers.alerts_of(of));
            client.settings.system_prompt = Some(format!("You speak for the {} company.", WORDS[of]));
            let key = self.whole.records().clients.put(&client).await.unwrap();
            self.marks[of] = [(*name).to_owned(), WORDS[of].to_owned(), TRACES[of].to_owned(), key];
        }
    }

    pub(super) fn key(&self, of: usize) -> &str {
        &self.marks[of][3]
    }

    /// A trace of the tenant's that nothing else is part of.
    fn trace(&self, of: usize) -> String {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        format!("00-{}{number:016x}-{number:016x}-01", TRACES[of])
    }

    /// A call of a tenant, and what it is answered, looked through.
    pub(super) async fn call(&self, of: usize, call: Call<'_>) -> (StatusCode, String) {
        self.called.lock().unwrap().insert(call.operation.to_owned());
        let method = call.operation.split_once(' ').unwrap().0.to_uppercase();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let caller = if call.secret {
            ("x-internal-secret", SECRET)
        } else {
            ("x-api-key", self.key(of))
        };
        let trace = self.trace(of);
        let headers = [call.headers, &[caller, ("traceparent", &trace)]].concat();
        let body = if call.body.is_null() {
            String::new()
        } else {
            call.body.to_string()
        };
        let request = request(method, call.path, &headers, body);
        let response = self.whole.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let all = format!("{:?} {text}", parts.headers);
        assert_apart(call.operation, of, &all, &self.marks);
        (parts.status, text)
    }

    /// What the store of chunks finds for a tenant, past everything else.
    pub(super) async fn search(&self, of: usize, words: &str) -> Vec<Hit> {
        let tenant = TenantId::authenticated(NAMES[of]).unwrap();
        let query = SearchQuery {
            text: words.to_owned(),
            dense: None,
            limit: 10,
        };
        let search = self.whole.installation.vectors.search(&tenant, &query);
        trace::within(self.trace(of).parse().ok(), search).await.unwrap()
    }

    /// A page of nobody's.
    pub(super) async fn read(&self, path: &str) -> String {
        let headers = [("x-internal-secret", SECRET)];
        let (status, text) = self
            .whole
            .send(request(Method::GET, path, &headers, String::new()))
            .await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    /// Ends it; the data folder is free for the program.
    pub(super) fn close(self) -> Closed {
        Closed {
            marks: self.marks,
            environment: self.environment,
            folder: self.folder,
        }
    }
}

impl Closed {
    /// Jobs that the server did not come to.
    pub(super) async fn leave_jobs(&self) {
        let database = open_database(&self.folder.join("stepgraph.db")).await.unwrap();
        let queue = SqliteDispatch::open(database.clone()).await.unwrap();
        for name in NAMES {
            let tenant = TenantId::authenticated(name).unwrap();
            let job = IngestJob::new(tenant, DocumentId::new("left-behind"), 1);
            queue.enqueue(&job).await.unwrap();
        }
        database.close().await;
    }

    /// What the program says on these data.
    pub(super) fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepgraph"));
        command
            .args(arguments)
            .env_clear()
            .env("STEPGRAPH_DATA", &self.folder)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }
}
