//! The product on a PostgreSQL, a Redis and a Qdrant of its own, and a steady load on it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use stepgraph_live::{Fsync, Postgres, Qdrant, Redis};
use stepgraph_nodes::service::tls;
use stepgraph_server::{
    app::{DataFolder, Graphs, Installation, http_settings},
    config::{Flags, Settings},
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The tables of the Express service.
const SCHEMA: &str = include_str!("../../../nodes/tests/support/express_schema.sql");
const SECRET: &str = "outage-secret";
pub(crate) const TENANTS: [&str; 3] = ["acme", "bolt", "cord"];
/// Sessions that talk at the same time, of each tenant.
const SESSIONS: usize = 2;
/// How long anything that should come about may take.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two messages of a session.
const PAUSE: Duration = Duration::from_millis(40);

/// The product, in this process, over HTTP.
pub(crate) struct Product {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    pub(crate) qdrant: Qdrant,
    database: String,
    url: String,
    http: reqwest::Client,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Product {
    pub(crate) async fn start() -> Self {
        tls::install();
        let postgres = Postgres::start().unwrap();
        let redis = Redis::start(Fsync::Never).unwrap();
        let qdrant = Qdrant::start_own().unwrap();
        let database = postgres.database().await.unwrap();
        let mut connection = PgConnection::connect(&database).await.unwrap();
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.unwrap();
        tenants(&mut connection).await;
        let folder = TempDir::new().unwrap();
        let environment = [
            ("DATABASE_URL", database.as_str()),
            ("REDIS_URL", &redis.url()),
            ("QDRANT_URL", qdrant.url()),
            ("INTERNAL_API_SECRET", SECRET),
        ];
        let mut flags = Flags::default();
        flags.data = Some(folder.path().to_owned());
        flags.model = Some("scripted".to_owned());
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::load(&flags, environment).unwrap();
        let held = DataFolder::hold(folder.path(), "test").unwrap();
        let installation = Installation::open(held, &settings).await.unwrap();
        let graphs = Graphs::open(&installation).await.unwrap();
        let backend = graphs.backend(&installation).await.unwrap();
        let server = graphs.server(&installation, backend, http_settings(&settings));
        let server = server.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move { server.serve(listener, stopped).await.unwrap() });
        let product = Self {
            postgres,
            redis,
            qdrant,
            database,
            url,
            http: reqwest::Client::new(),
            stop,
            serving,
            _folder: folder,
        };
        for tenant in TENANTS {
            product.ingest(tenant).await;
        }
        product
    }

    async fn ingest(&self, tenant: &str) {
        use base64::Engine as _;
        let text = format!("The warranty of {tenant} lasts 36 months from the date of purchase.");
        let body = json!({
            "documentId": Uuid::new_v4(), "clientId": tenant, "fileType": "txt", "originalName": "warranty.txt",
            "fileData": base64::engine::general_purpose::STANDARD.encode(text),
        });
        let (status, said) = self.post("/process-document", &body).await;
        assert_eq!((status, &said["chunksCreated"]), (200, &json!(1)), "{said}");
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url));
        let response = request
            .header("x-internal-secret", SECRET)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let wait = response.headers().contains_key("retry-after");
        let mut said: Value = response.json().await.unwrap();
        said["waits"] = json!(wait);
        (status, said)
    }

    /// Waits until health says this: the status, and whether each of the two that it names answers.
    pub(crate) async fn until_health_is(&self, status: &str, qdrant: bool, redis: bool) {
        let mut last = Value::Null;
        let look = async {
            loop {
                let response = self.http.get(format!("{}/health", self.url)).send().await.unwrap();
                let code = response.status().as_u16();
                last = response.json().await.unwrap();
                assert_eq!(code == 503, last["status"] == "unhealthy", "{last}");
                let services = &last["services"];
                if last["status"] == status && services["qdrant"] == qdrant && services["redis"] == redis {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let came = timeout(PATIENCE, look).await;
        assert!(came.is_ok(), "health should be {status}, and is {last}");
    }

    /// Sessions of every tenant that talk until the load is stopped.
    pub(crate) fn load(&self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut talks = Vec::new();
        for tenant in TENANTS {
            for first in 0..SESSIONS {
                let caller = Caller {
                    http: self.http.clone(),
                    url: format!("{}/chat", self.url),
                    tenant,
                    session: Uuid::new_v4(),
                };
                let (stop, heard) = (Arc::clone(&stop), Arc::clone(&heard));
                talks.push(tokio::spawn(async move {
                    for number in (first..).step_by(SESSIONS) {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let said = caller.ask(number).await;
                        heard.lock().unwrap().push(said);
                        tokio::time::sleep(PAUSE).await;
                    }
                }));
            }
        }
        Load { stop, heard, talks }
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.database).await.unwrap()
    }

    /// Waits until every accepted answer has a row.
    pub(crate) async fn until_logged(&self, accepted: &[Heard]) {
        let mut missing = Vec::new();
        let look = async {
            loop {
                let rows = self.rows().await;
                missing = accepted
                    .iter()
                    .filter(|heard| !rows.contains_key(&heard.trace))
                    .cloned()
                    .collect();
                if missing.is_empty() {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let came = timeout(PATIENCE, look).await;
        assert!(
            came.is_ok(),
            "{} answers are not logged: {:?}",
            missing.len(),
            missing.first()
        );
    }

    /// Of each run its rows in the chat log: tenant, role and metadata.
    pub(crate) async fn rows(&self) -> BTreeMap<String, Vec<(String, String, Value)>> {
        let all: Vec<(String, String, String, Value)> =
            sqlx::query_as("SELECT trace_id, client_id, role, metadata FROM chat_logs ORDER BY trace_id, role DESC")
                .fetch_all(&mut self.connection().await)
                .await
                .unwrap();
        let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (trace, tenant, role, metadata) in all {
            rows.entry(trace).or_default().push((tenant, role, metadata));
        }
        rows
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

async fn tenants(connection: &mut PgConnection) {
    let owner = "INSERT INTO users (id, username, password) VALUES ('owner', 'owner', '-')";
    sqlx::query(owner).execute(&mut *connection).await.unwrap();
    for tenant in TENANTS {
        let client = "INSERT INTO clients (id, user_id, name, public_api_key, tier) VALUES ($1, 'owner', $1, 'pk_live_' || $1, 'paid')";
        sqlx::query(client)
            .bind(tenant)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}

struct Caller {
    http: reqwest::Client,
    url: String,
    tenant: &'static str,
    session: Uuid,
}

impl Caller {
    async fn ask(&self, number: usize) -> Heard {
        // Never the same words twice, so that no answer comes out of a cache.
        let tenant = self.tenant;
        let message = format!("how many months from the date of purchase does the warranty of {tenant} last? {number}");
        let body = json!({"clientId": self.tenant, "sessionId": self.session, "message": message});
        let began = Instant::now();
        let request = self.http.post(&self.url).header("x-internal-secret", SECRET);
        let response = request.json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        let waits = response.headers().contains_key("retry-after");
        let said: Value = response.json().await.unwrap();
        Heard {
            tenant: self.tenant,
            status,
            waits,
            code: said["error"]["code"].as_str().unwrap_or_default().to_owned(),
            trace: said["traceId"].as_str().unwrap_or_default().to_owned(),
            took: began.elapsed(),
            sources: said["sources"].as_array().map_or(0, Vec::len),
        }
    }
}

/// What a session was told.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) tenant: &'static str,
    pub(crate) status: u16,
    pub(crate) waits: bool,
    pub(crate) code: String,
    pub(crate) trace: String,
    pub(crate) took: Duration,
    pub(crate) sources: usize,
}

/// A load that goes on.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<Heard>>>,
    talks: Vec<JoinHandle<()>>,
}

impl Load {
    fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// What is heard from now on until so many for which `which` holds.
    pub(crate) async fn hear(&self, many: usize, which: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let from = self.count();
        let mut heard = Vec::new();
        let look = async {
            loop {
                heard = self.heard.lock().unwrap().iter().skip(from).cloned().collect();
                if heard.iter().filter(|heard| which(heard)).count() >= many {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let came = timeout(PATIENCE, look).await;
        assert!(came.is_ok(), "too little was heard: {:?}", heard.last());
        heard
    }

    /// Lets each session end what it says, and gives all that was heard.
    pub(crate) async fn end(self) -> Vec<Heard> {
        self.stop.store(true, Ordering::SeqCst);
        for talk in self.talks {
            timeout(PATIENCE, talk).await.unwrap().unwrap();
        }
        let heard = self.heard.lock().unwrap();
        heard.clone()
    }
}
