//! A server over embedded services in a folder of its own.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use serde_json::{Value, json};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    Client, Clients, Documents, Embedder, Secret, VectorStore,
    embedded::{Extractive, MokaCache, SqliteRecords, SqliteVectors},
};
use stepgraph_server::{Backend, HttpSettings, Server, SqliteDispatch};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::fakes::{FakeChat, FakeIngest};

pub(crate) const SECRET: &str = "internal-secret";
pub(crate) const SESSION: &str = "3f2b8c1e-5a4d-4c8b-9e77-0a1b2c3d4e5f";

pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) router: Router,
    pub(crate) chat: Arc<FakeChat>,
    pub(crate) ingest: Arc<FakeIngest>,
    pub(crate) clients: Arc<SqliteRecords>,
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) vectors: Arc<dyn VectorStore>,
    pub(crate) pool: SqlitePool,
    /// The key of the tenant `acme`, free tier.
    pub(crate) key: String,
    _folder: TempDir,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The code of the envelope, whose shape is checked on the way.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        assert!(
            body["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{body}"
        );
        assert!(
            body["traceId"].as_str().is_some_and(|trace| trace.len() == 36),
            "{body}"
        );
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn reason(&self) -> String {
        self.json()["error"]["details"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) async fn pool(folder: &TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("stepgraph.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(std::time::Duration::from_secs(10));
    SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .unwrap()
}

pub(crate) fn client(id: &str) -> Client {
    Client::new(TenantId::authenticated(id).unwrap())
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(HttpSettings::default()).await
    }

    pub(crate) async fn with(settings: HttpSettings) -> Self {
        Self::with_embedder(settings, None).await
    }

    pub(crate) async fn with_embedder(settings: HttpSettings, embedder: Option<Arc<dyn Embedder>>) -> Self {
        let folder = TempDir::new().unwrap();
        let pool = pool(&folder).await;
        let records = Arc::new(SqliteRecords::open(pool.clone()).await.unwrap());
        let vectors: Arc<dyn VectorStore> =
            Arc::new(SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap());
        let key = records.put(&client("acme")).await.unwrap();
        let chat = Arc::new(FakeChat::default());
        let documents: Arc<dyn Documents> = Arc::clone(&records) as _;
        let ingest = Arc::new(FakeIngest::new(Arc::clone(&documents), Arc::clone(&vectors)));
        let backend = Backend {
            embedder,
            clients: Arc::clone(&records) as _,
            documents: Arc::clone(&documents),
            log: Arc::clone(&records) as _,
            alerts: Arc::clone(&records) as _,
            feedbacks: Arc::clone(&records) as _,
            named: Arc::clone(&records) as _,
            vectors: Arc::clone(&vectors),
            cache: Arc::new(MokaCache::new()),
            models: vec![Arc::new(Extractive)],
            chat: Arc::clone(&chat) as _,
            ingest: Arc::clone(&ingest) as _,
            dispatch: Arc::new(SqliteDispatch::open(pool.clone()).await.unwrap()),
            metrics: Arc::default(),
        };
        let settings = HttpSettings {
            internal_secret: Some(Secret::new(SECRET)),
            ..settings
        };
        let server = Server::builder().product(backend).settings(settings).build().unwrap();
        let router = server.router();
        Self {
            server,
            router,
            chat,
            ingest,
            clients: records,
            documents,
            vectors,
            pool,
            key,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// A chat message by public key.
    pub(crate) async fn say(&self, message: &str) -> Reply {
        self.send(post("/chat", &[("x-api-key", &self.key)], &chat_body(message)))
            .await
    }

    /// A call of the internal service.
    pub(crate) async fn internal(&self, method: Method, path: &str, body: Value) -> Reply {
        self.send(request(
            method,
            path,
            &[("x-internal-secret", SECRET)],
            body.to_string(),
        ))
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.internal(Method::GET, path, Value::Null).await
    }

    /// Uploads a document of the tenant `acme`.
    pub(crate) async fn upload(&self, id: &str, content: &str) -> Reply {
        self.internal(Method::POST, "/process-document", upload_body("acme", id, content))
            .await
    }
}

pub(crate) fn chat_body(message: &str) -> Value {
    json!({"message": message, "sessionId": SESSION})
}

pub(crate) fn upload_body(client: &str, id: &str, content: &str) -> Value {
    use base64::Engine;
    let data = base64::engine::general_purpose::STANDARD.encode(content);
    json!({"documentId": id, "clientId": client, "fileData": data, "fileType": "txt", "originalName": format!("{id}.txt")})
}

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Body> {
    request(Method::POST, path, headers, body.to_string())
}

pub(crate) fn request(method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}
