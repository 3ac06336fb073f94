//! Tenants never mix: thousands of random operations of two tenants that name everything alike, over every route of the
//! whole server. Whatever one of them is answered, and whatever is kept, counted or logged of it, is looked through for
//! the other.

mod caller;

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _, SqlitePool};
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    Cache, CacheState, CachedVectors, Client, Counted, ServiceError, Tier, VectorStore,
    embedded::{MokaCache, SqliteVectors},
};
use stepgraph_server::{
    app::{DataFolder, Graphs, Installation, http_settings, open_database},
    config::{Flags, Settings},
};
use tower::ServiceExt as _;
use uuid::Uuid;

use self::caller::Caller;
use crate::house::{SECRET, request};

/// Operations of both tenants together, unless `STEPGRAPH_TENANT_OPERATIONS` says otherwise.
const OPERATIONS: usize = 10_000;
/// Callers of each tenant at once, each with documents and sessions of its own.
const CALLERS: usize = 4;
const NAMES: [&str; 2] = ["acmealpha", "globexbeta"];
/// A word in every text of the tenant.
const WORDS: [&str; 2] = ["zebraheron", "walrusotter"];
/// Routes that know no tenant.
const OF_NOBODY: [&str; 7] = [
    "get /",
    "get /health",
    "get /ok",
    "get /info",
    "get /metrics",
    "get /docs",
    "get /openapi.json",
];

/// What is looked for where it must not be.
type Marks = [[String; 3]; 2];

fn assert_apart(place: &str, of: usize, text: &str, marks: &Marks) {
    for mark in &marks[1 - of] {
        assert!(
            !text.contains(mark),
            "`{mark}` shows to {}, in {place}: {text}",
            NAMES[of]
        );
    }
}

/// Looks at all that is kept for a while, key and value.
struct Watched {
    inner: MokaCache,
    leaks: Mutex<Vec<String>>,
    keys: Mutex<BTreeSet<(String, String)>>,
}

impl Watched {
    fn look(&self, tenant: &TenantId, key: &str, value: &[u8]) {
        let of = usize::from(tenant.as_str() == NAMES[1]);
        let text = format!("{key} {}", String::from_utf8_lossy(value));
        if text.contains(WORDS[1 - of]) || text.contains(NAMES[1 - of]) {
            self.leaks.lock().unwrap().push(format!("{tenant}: {text}"));
        }
        self.keys.lock().unwrap().insert((tenant.to_string(), key.to_owned()));
    }
}

#[async_trait]
impl Cache for Watched {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        let found = self.inner.get(tenant, key).await?;
        self.look(tenant, key, found.as_deref().unwrap_or_default());
        Ok(found)
    }

    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError> {
        self.look(tenant, key, &value);
        self.inner.put(tenant, key, value, ttl).await
    }

    async fn count(
        &self,
        tenant: &TenantId,
        key: &str,
        ttl: Duration,
        cap: Option<u64>,
    ) -> Result<Counted, ServiceError> {
        self.look(tenant, key, &[]);
        self.inner.count(tenant, key, ttl, cap).await
    }

    async fn generation(&self, tenant: &TenantId) -> Result<Uuid, ServiceError> {
        self.inner.generation(tenant).await
    }

    async fn renew(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        self.inner.renew(tenant).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        self.inner.erase(tenant).await
    }

    async fn state(&self) -> CacheState {
        self.inner.state().await
    }
}

/// Log lines, as they are written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The whole server in this process, on a data folder.
struct World {
    router: axum::Router,
    keys: [String; 2],
    marks: Marks,
    vectors: Arc<dyn VectorStore>,
    /// `method path` of all that was called.
    called: Mutex<BTreeSet<String>>,
}

impl World {
    /// A call of a tenant, and what it is answered, looked through.
    async fn call(&self, of: usize, operation: &str, path: &str, secret: bool, body: &Value) -> (StatusCode, String) {
        self.called.lock().unwrap().insert(operation.to_owned());
        let method = operation.split_once(' ').unwrap().0.to_uppercase();
        let header = if secret {
            ("x-internal-secret", SECRET)
        } else {
            ("x-api-key", self.keys[of].as_str())
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let response = self
            .router
            .clone()
            .oneshot(request(method, path, &[header], body))
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_apart(operation, of, &format!("{:?} {text}", parts.headers), &self.marks);
        (parts.status, text)
    }
}

/// Every row of every table there is, as text.
async fn rows(pool: &SqlitePool) -> Vec<(String, String)> {
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(pool)
        .await
        .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
            .bind(&table)
            .fetch_all(pool)
            .await
            .unwrap();
        let text: Vec<String> = columns
            .iter()
            .map(|column| format!("coalesce(CAST(\"{column}\" AS BLOB), x'')"))
            .collect();
        let statement = format!("SELECT {} FROM \"{table}\"", text.join(", "));
        for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(pool).await.unwrap() {
            let cells = (0..columns.len()).map(|cell| String::from_utf8_lossy(row.get::<&[u8], _>(cell)).into_owned());
            found.push((table.clone(), cells.collect::<Vec<_>>().join("|")));
        }
    }
    found
}

async fn world(folder: &Path, cache: Arc<Watched>) -> (World, stepgraph_server::Server) {
    let environment = [("INTERNAL_API_SECRET", SECRET), ("STEPGRAPH_MODEL", "scripted")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut settings = Settings::load(&Flags::default(), environment).unwrap();
    settings.data = folder.to_owned();
    let held = DataFolder::hold(folder, "test").unwrap();
    let mut installation = Installation::open(held, &settings).await.unwrap();
    let vectors = SqliteVectors::open(folder.join("vectors.db")).await.unwrap();
    installation.cache = Arc::clone(&cache) as _;
    installation.vectors = Arc::new(CachedVectors::new(Arc::new(vectors), cache));
    let mut keys = Vec::new();
    for (name, word) in NAMES.iter().zip(WORDS) {
        let mut client = Client::new(TenantId::authenticated(*name).unwrap());
        client.tier = Tier::Paid;
        client.unlimited = true;
        client.settings.system_prompt = Some(format!("You speak for the {word} company."));
        keys.push(installation.records.clients.put(&client).await.unwrap());
    }
    let keys: [String; 2] = keys.try_into().unwrap();
    let graphs = Graphs::open(&installation).await.unwrap();
    let backend = graphs.backend(&installation).await.unwrap();
    let server = graphs
        .server(&installation, backend, http_settings(&settings))
        .build()
        .unwrap();
    server.start_workers();
    let marks = [0, 1].map(|of| [NAMES[of].to_owned(), WORDS[of].to_owned(), keys[of].clone()]);
    let world = World {
        router: server.router(),
        keys,
        marks,
        vectors: Arc::clone(&installation.vectors),
        called: Mutex::default(),
    };
    (world, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_two_tenants_do_neither_is_shown_kept_counted_or_logged_with_the_other() {
    let operations = std::env::var("STEPGRAPH_TENANT_OPERATIONS").map_or(OPERATIONS, |count| count.parse().unwrap());
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("info,stepgraph=debug,stepgraph_server=debug,stepgraph_nodes=debug")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Of a process of its own under nextest; elsewhere the lines of other tests are among them, and harmless.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(Watched {
        inner: MokaCache::new(),
        leaks: Mutex::default(),
        keys: Mutex::default(),
    });
    let (world, server) = world(folder.path(), Arc::clone(&cache)).await;

    let callers = (0..2).flat_map(|of| (0..CALLERS).map(move |number| (of, number)));
    let mut callers: Vec<_> = callers.map(|(of, number)| Caller::new(&world, of, number)).collect();
    let each = operations.div_ceil(callers.len());
    join_all(callers.iter_mut().map(|caller| caller.operations(each))).await;

    every_route_was_called(&world).await;
    assert_eq!(*cache.leaks.lock().unwrap(), Vec::<String>::new());
    for name in NAMES {
        assert!(
            cache.keys.lock().unwrap().iter().any(|(tenant, _)| tenant == name),
            "the cache was used"
        );
    }
    let metrics = world.router.clone().oneshot(request(
        Method::GET,
        "/metrics",
        &[("x-internal-secret", SECRET)],
        String::new(),
    ));
    let metrics = axum::body::to_bytes(metrics.await.unwrap().into_body(), usize::MAX)
        .await
        .unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(NAMES.iter().all(|name| metrics.contains(name)), "{metrics}");
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for line in metrics.lines().chain(logged.lines()) {
        let of_both = |mark: usize| (0..2).all(|of| line.contains(&world.marks[of][mark]));
        assert!(
            !(0..3).any(of_both) && !line.contains(WORDS[0]) && !line.contains(WORDS[1]),
            "{line}"
        );
    }
    server.drain().await;
    drop(world);
    drop(server);
    kept_apart(folder.path()).await;
    erased(folder.path()).await;
}

async fn every_route_was_called(world: &World) {
    let described = world
        .router
        .clone()
        .oneshot(request(Method::GET, "/openapi.json", &[], String::new()));
    let bytes = axum::body::to_bytes(described.await.unwrap().into_body(), usize::MAX)
        .await
        .unwrap();
    let api: Value = serde_json::from_slice(&bytes).unwrap();
    let called = world.called.lock().unwrap();
    for (path, operations) in api["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let operation = format!("{method} {path}");
            let known = called.contains(&operation) || OF_NOBODY.contains(&operation.as_str());
            assert!(known, "no tenant calls `{operation}`: add it to the operations");
        }
    }
}

async fn databases(folder: &Path) -> [SqlitePool; 2] {
    let records = open_database(&folder.join("stepgraph.db")).await.unwrap();
    [records, open_database(&folder.join("vectors.db")).await.unwrap()]
}

async fn kept_apart(folder: &Path) {
    for pool in databases(folder).await {
        let rows = rows(&pool).await;
        for of in 0..2 {
            let own = rows
                .iter()
                .filter(|(_, row)| row.contains(NAMES[of]) || row.contains(WORDS[of]));
            let mut count = 0;
            for (table, row) in own {
                count += 1;
                let foreign = row.contains(NAMES[1 - of]) || row.contains(WORDS[1 - of]);
                assert!(!foreign, "a row of `{table}` is of both: {row}");
            }
            assert!(count > 0, "nothing of {} is kept", NAMES[of]);
        }
        pool.close().await;
    }
    // Rows of chunks have the tenant's number in place of its name.
    let [records, vectors] = databases(folder).await;
    for (table, column) in [("chunk", "text"), ("posting", "term")] {
        let statement =
            format!("SELECT tenant.name, {table}.{column} FROM {table} JOIN tenant ON tenant.id = {table}.tenant");
        let rows: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(statement))
            .fetch_all(&vectors)
            .await
            .unwrap();
        for (name, text) in rows {
            let of = usize::from(name == NAMES[1]);
            assert!(!text.contains(WORDS[1 - of]), "`{table}` of {name}: {text}");
        }
    }
    records.close().await;
    vectors.close().await;
}

/// Nothing of the one is left in any table there is, and all of the other.
async fn erased(folder: &Path) {
    let count = async |of: usize| {
        let (mut found, pools) = (Vec::new(), databases(folder).await);
        for pool in &pools {
            let of_tenant = rows(pool)
                .await
                .into_iter()
                .filter(|(_, row)| row.contains(NAMES[of]) || row.contains(WORDS[of]));
            found.extend(of_tenant);
            let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(pool).await.unwrap();
            assert!(dangling.is_empty(), "{} rows belong to nothing", dangling.len());
            pool.close().await;
        }
        found
    };
    let (before, stays) = (count(0).await.len(), count(1).await.len());
    assert!(before > 0 && stays > 0);

    let erase = Command::new(env!("CARGO_BIN_EXE_stepgraph"))
        .args(["tenant", "erase", NAMES[0], "--yes", "--data"])
        .arg(folder)
        .env("STEPGRAPH_MODEL", "scripted")
        .output()
        .unwrap();

    assert!(erase.status.success(), "{}", String::from_utf8_lossy(&erase.stderr));
    assert_eq!(count(0).await, Vec::new(), "left of the erased tenant");
    assert_eq!(count(1).await.len(), stays, "the other tenant keeps all it had");
}
