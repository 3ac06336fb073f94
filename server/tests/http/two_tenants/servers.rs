//! The servers that the product stands on, looked at through their own clients.

use std::collections::BTreeMap;

use async_trait::async_trait;
use qdrant_client::qdrant::ScrollPointsBuilder;
use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use stepgraph_live::{Fsync, Postgres, Qdrant, Redis};
use stepgraph_nodes::service::tls;

use super::{
    Marks, NAMES, TRACES, assert_apart,
    kept::{Kept, Store, counted, named},
};
use crate::provider::Provider;

/// The tables of the Express service.
const SCHEMA: &str = include_str!("../../../../nodes/tests/support/express_schema.sql");
/// Points read at once.
const PAGE: u32 = 200;
/// Keys read at once.
const SCAN_COUNT: u32 = 500;

/// A PostgreSQL with two databases, a Redis, a Qdrant and a provider of models.
pub(super) struct Servers {
    records: String,
    threads: String,
    redis: Redis,
    qdrant: Qdrant,
    provider: Provider,
}

impl Servers {
    pub(super) async fn start() -> Self {
        tls::install();
        let postgres = Postgres::shared().unwrap();
        let records = postgres.database().await.unwrap();
        let mut connection = PgConnection::connect(&records).await.unwrap();
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.unwrap();
        Self {
            records,
            threads: postgres.database().await.unwrap(),
            redis: Redis::start(Fsync::Always).unwrap(),
            qdrant: Qdrant::start_own().unwrap(),
            provider: Provider::start().await,
        }
    }

    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.provider.environment();
        environment.extend([
            ("DATABASE_URL", self.records.clone()),
            ("STEPGRAPH_CHECKPOINTS_URL", self.threads.clone()),
            ("REDIS_URL", self.redis.url()),
            ("QDRANT_URL", self.qdrant.url().to_owned()),
        ]);
        environment
    }

    pub(super) async fn records(&self) -> Database {
        Database::open(&self.records).await
    }

    pub(super) async fn threads(&self) -> Database {
        Database::open(&self.threads).await
    }

    pub(super) async fn keys(&self) -> Keys {
        let client = redis::Client::open(self.redis.url()).unwrap();
        let keys = Keys {
            connection: client.get_multiplexed_async_connection().await.unwrap(),
            before: BTreeMap::new(),
        };
        assert_eq!(keys.all().await, []);
        keys
    }

    pub(super) async fn points(&self) -> Points {
        let client = qdrant_client::Qdrant::from_url(self.qdrant.url())
            .skip_compatibility_check()
            .build();
        let points = Points {
            client: client.unwrap(),
            before: BTreeMap::new(),
        };
        assert_eq!(points.all().await, []);
        points
    }

    /// That what was sent to the provider and to Qdrant for one tenant is part of its traces and of no other's.
    pub(super) fn check_sent(&self, marks: &Marks) {
        let mut requests = [0, 0];
        for seen in self.provider.seen() {
            let trace = seen.trace.unwrap_or_else(|| panic!("without a trace: {}", seen.body));
            let of = of_trace(&trace);
            requests[of] += 1;
            assert_apart("a request to the provider", of, &seen.body, marks);
        }
        let mut calls = [0, 0];
        for call in self.qdrant.calls().unwrap() {
            let of = call.trace.as_deref().map(of_trace);
            for name in &call.tenants {
                // The program's commands are part of no trace: what they do stands at the end, behind all requests.
                assert!(of.is_none_or(|of| NAMES[of] == name), "{call:?}");
            }
            if let (Some(of), false) = (of, call.tenants.is_empty()) {
                calls[of] += 1;
            }
        }
        let all = requests.iter().chain(&calls);
        assert!(all.clone().all(|count| *count > 0), "{requests:?} {calls:?}");
    }

    /// That so far every call to Qdrant that names a tenant is part of a trace.
    pub(super) fn check_all_traced(&self) {
        let calls = self.qdrant.calls().unwrap();
        let alone = calls
            .iter()
            .find(|call| !call.tenants.is_empty() && call.trace.is_none());
        assert_eq!(alone, None);
    }
}

fn of_trace(trace: &str) -> usize {
    let id = trace.strip_prefix("00-").unwrap();
    let of = TRACES.iter().position(|begin| id.starts_with(begin));
    of.unwrap_or_else(|| panic!("nobody's trace: {trace}"))
}

/// A database of PostgreSQL.
pub(super) struct Database {
    url: String,
    before: BTreeMap<String, usize>,
}

impl Database {
    async fn open(url: &str) -> Self {
        let mut database = Self {
            url: url.to_owned(),
            before: BTreeMap::new(),
        };
        database.before = counted(&database.all().await);
        database
    }
}

#[async_trait]
impl Store for Database {
    async fn all(&self) -> Vec<Kept> {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let list = "SELECT table_name::text, array_agg(column_name::text) FROM information_schema.columns
                    JOIN information_schema.tables USING (table_schema, table_name)
                    WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
                    GROUP BY table_name ORDER BY table_name";
        let listed: Vec<(String, Vec<String>)> = sqlx::query_as(list).fetch_all(&mut connection).await.unwrap();
        let tables: Vec<String> = listed.iter().map(|(table, _)| table.clone()).collect();
        let mut found = Vec::new();
        for (place, columns) in listed {
            let name = named(&place, &columns, &tables).unwrap_or_else(|| "''".to_owned());
            // Bytes are told as hexadecimal digits: read them as text.
            let statement = format!("SELECT {name}, row::text FROM \"{place}\" row");
            let rows = sqlx::query_as::<_, (Option<String>, String)>(AssertSqlSafe(statement));
            for (name, row) in rows.fetch_all(&mut connection).await.unwrap() {
                let text = format!("{}|{row}|{}", name.unwrap_or_default(), bytes(&row));
                found.push(Kept {
                    place: place.clone(),
                    text,
                });
            }
        }
        connection.close().await.unwrap();
        found
    }

    fn before(&self) -> &BTreeMap<String, usize> {
        &self.before
    }
}

/// The bytes in a row, as text; it has them as `\\x6162`.
fn bytes(row: &str) -> String {
    let mut text = String::new();
    for cell in row.split("\\x").skip(1) {
        let digits: Vec<u8> = cell.bytes().take_while(u8::is_ascii_hexdigit).collect();
        let read = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(read).collect();
        text.push_str(&String::from_utf8_lossy(&bytes));
        text.push('|');
    }
    text
}

/// The keys of a Redis.
pub(super) struct Keys {
    connection: MultiplexedConnection,
    before: BTreeMap<String, usize>,
}

#[async_trait]
impl Store for Keys {
    async fn all(&self) -> Vec<Kept> {
        let mut connection = self.connection.clone();
        let (mut cursor, mut found) = (0_u64, BTreeMap::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
            for key in keys {
                let mut get = redis::cmd("GET");
                let value: Option<Vec<u8>> = get.arg(&key).query_async(&mut connection).await.unwrap();
                found.insert(key, value.unwrap_or_default());
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let kept = |(key, value): (String, Vec<u8>)| {
            let owners = NAMES.iter().filter(|name| key.contains(*name)).count();
            assert_eq!(owners, 1, "each key is of one tenant: {key}");
            Kept {
                place: "keys".to_owned(),
                text: format!("{key}|{}", String::from_utf8_lossy(&value)),
            }
        };
        found.into_iter().map(kept).collect()
    }

    fn before(&self) -> &BTreeMap<String, usize> {
        &self.before
    }
}

/// The points of all collections of a Qdrant.
pub(super) struct Points {
    client: qdrant_client::Qdrant,
    before: BTreeMap<String, usize>,
}

#[async_trait]
impl Store for Points {
    async fn all(&self) -> Vec<Kept> {
        let listed = self.client.list_collections().await.unwrap().collections;
        assert!(!listed.is_empty());
        let mut found = Vec::new();
        for collection in listed {
            let mut offset = None;
            loop {
                let mut scroll = ScrollPointsBuilder::new(&collection.name)
                    .limit(PAGE)
                    .with_payload(true);
                if let Some(offset) = offset {
                    scroll = scroll.offset(offset);
                }
                let page = self.client.scroll(scroll).await.unwrap();
                found.extend(page.result.iter().map(|point| Kept {
                    place: collection.name.clone(),
                    text: format!("{:?}", point.payload),
                }));
                offset = page.next_page_offset;
                if offset.is_none() {
                    break;
                }
            }
        }
        found
    }

    fn before(&self) -> &BTreeMap<String, usize> {
        &self.before
    }
}
