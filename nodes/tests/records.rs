//! The embedded records over real `SQLite` files.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[path = "records/documents.rs"]
mod documents;
#[path = "records/named.rs"]
mod named;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::{
    language::Language,
    service::{
        ChatLog, ChatTurn, Client, ClientSettings, ClientStatus, Clients, Cost, DocumentId, Documents, FileType,
        ModelName, ServiceError, Source, Staged, Tier, Usage, embedded::SqliteRecords,
    },
};
use tempfile::TempDir;

struct Store {
    records: SqliteRecords,
    pool: SqlitePool,
    folder: TempDir,
}

async fn pool(folder: &TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("records.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(10));
    SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .unwrap()
}

async fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&folder).await;
    Store {
        records: SqliteRecords::open(pool.clone()).await.unwrap(),
        pool,
        folder,
    }
}

fn tenant(id: &str) -> TenantId {
    TenantId::authenticated(id).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn turn(run: RunId, session: &str, asked_at: &str) -> ChatTurn {
    ChatTurn {
        run,
        session: session.to_owned(),
        question: "how long is the warranty?".to_owned(),
        answer: "Two years.".to_owned(),
        sources: vec![Source {
            document_id: "manual".to_owned(),
            title: "Manual".to_owned(),
            excerpt: "The warranty lasts two years.".to_owned(),
            score: 0.5,
            chunk_index: 3,
        }],
        usage: Usage {
            prompt_tokens: 100,
            completion_tokens: 20,
            cached_tokens: 60,
            ..Usage::default()
        },
        cost: Cost::from_microcents(700_000),
        overage: false,
        model: ModelName::new("extractive"),
        latency: Duration::from_millis(120),
        degraded: true,
        asked_at: at(asked_at),
    }
}

/// A column of the tenant's one row of `usage_stats`.
async fn booked(pool: &SqlitePool, tenant: &str, column: &str) -> i64 {
    let rows = sqlx::query("SELECT * FROM usage_stats WHERE client_id = ?")
        .bind(tenant)
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1, "one row per tenant and day");
    rows.first().unwrap().get(column)
}

async fn rows(pool: &SqlitePool, table: &'static str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_turn_reads_back_as_it_was_written() {
    let store = store().await;
    let written = turn(RunId::random(), "s", "2026-11-22T10:00:00.123456Z");

    store.records.write(&tenant("a"), &written).await.unwrap();

    assert_eq!(store.records.session(&tenant("a"), "s", 10).await.unwrap(), [written]);
}

#[tokio::test]
async fn a_second_write_of_the_same_run_leaves_one_pair_of_rows_and_one_booking() {
    let store = store().await;
    let first = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    let again = ChatTurn {
        answer: "Something else.".to_owned(),
        latency: Duration::from_secs(9),
        ..first.clone()
    };

    store.records.write(&tenant("a"), &first).await.unwrap();
    store.records.write(&tenant("a"), &again).await.unwrap();

    assert_eq!(rows(&store.pool, "chat_logs").await, 2);
    assert_eq!(store.records.session(&tenant("a"), "s", 10).await.unwrap(), [first]);
    assert_eq!(booked(&store.pool, "a", "user_messages").await, 1);
    assert_eq!(booked(&store.pool, "a", "total_tokens").await, 120);
    let requests: i64 = sqlx::query_scalar("SELECT sum(request_count) FROM usage_hourly")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn writes_of_one_run_at_the_same_time_book_it_once() {
    let store = store().await;
    let turn = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");

    let tasks: tokio::task::JoinSet<_> = (0..8)
        .map(|_| {
            let (records, turn) = (store.records.clone(), turn.clone());
            async move { records.write(&tenant("a"), &turn).await.unwrap() }
        })
        .collect();
    tasks.join_all().await;

    assert_eq!(rows(&store.pool, "chat_logs").await, 2);
    assert_eq!(booked(&store.pool, "a", "total_messages").await, 2);
}

#[tokio::test]
async fn the_day_sums_its_turns_and_counts_each_session_once() {
    let store = store().await;
    for minute in 0..40 {
        let session = if minute % 2 == 0 { "even" } else { "odd" };
        let asked_at = format!("2026-11-22T{:02}:{minute:02}:00Z", minute / 20);
        let latency = Duration::from_millis(10 * (minute + 1));
        let turn = ChatTurn {
            latency,
            ..turn(RunId::random(), session, &asked_at)
        };
        store.records.write(&tenant("a"), &turn).await.unwrap();
    }

    assert_eq!(booked(&store.pool, "a", "total_messages").await, 80);
    assert_eq!(booked(&store.pool, "a", "assistant_messages").await, 40);
    assert_eq!(booked(&store.pool, "a", "prompt_tokens").await, 4000);
    assert_eq!(booked(&store.pool, "a", "completion_tokens").await, 800);
    assert_eq!(booked(&store.pool, "a", "cached_tokens").await, 2400);
    assert_eq!(booked(&store.pool, "a", "unique_sessions").await, 2);
    assert_eq!(booked(&store.pool, "a", "avg_latency_ms").await, 205);
    assert_eq!(booked(&store.pool, "a", "p95_latency_ms").await, 380);
    let by_hour: Vec<(i64, i64, i64)> =
        sqlx::query_as("SELECT hour, request_count, total_tokens FROM usage_hourly ORDER BY hour")
            .fetch_all(&store.pool)
            .await
            .unwrap();
    assert_eq!(by_hour, [(0, 20, 2400), (1, 20, 2400)]);
}

#[tokio::test]
async fn a_write_that_fails_half_way_leaves_no_row_behind() {
    let store = store().await;
    sqlx::query(
        "CREATE TRIGGER no_usage BEFORE INSERT ON usage_hourly BEGIN SELECT raise(ABORT, 'no usage today'); END",
    )
    .execute(&store.pool)
    .await
    .unwrap();

    let turn = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    store.records.write(&tenant("a"), &turn).await.unwrap_err();
    assert_eq!(rows(&store.pool, "chat_logs").await, 0);
    assert_eq!(rows(&store.pool, "usage_stats").await, 0);

    sqlx::query("DROP TRIGGER no_usage").execute(&store.pool).await.unwrap();
    store.records.write(&tenant("a"), &turn).await.unwrap();
    assert_eq!(rows(&store.pool, "chat_logs").await, 2);
}

#[tokio::test]
async fn a_write_that_is_dropped_midway_leaves_all_or_nothing() {
    let store = store().await;
    let tenant = tenant("a");
    for polls in 1..40 {
        let turn = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
        let mut write = Box::pin(store.records.write(&tenant, &turn));
        for _ in 0..polls {
            if futures_util::poll!(&mut write).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(write);
    }

    let (users, answers): (i64, i64) =
        sqlx::query_as("SELECT coalesce(sum(role = 'user'), 0), coalesce(sum(role = 'assistant'), 0) FROM chat_logs")
            .fetch_one(&store.pool)
            .await
            .unwrap();
    let booked: i64 = sqlx::query_scalar("SELECT coalesce(sum(user_messages), 0) FROM usage_stats")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!((answers, booked), (users, users));
}

#[tokio::test]
async fn a_session_gives_its_latest_turns_oldest_first() {
    let store = store().await;
    for (question, minute) in [("third", 3), ("first", 1), ("second", 2)] {
        let asked_at = format!("2026-11-22T10:{minute:02}:00Z");
        let turn = ChatTurn {
            question: question.to_owned(),
            ..turn(RunId::random(), "s", &asked_at)
        };
        store.records.write(&tenant("a"), &turn).await.unwrap();
    }

    let turns = store.records.session(&tenant("a"), "s", 2).await.unwrap();

    assert_eq!(
        turns.into_iter().map(|turn| turn.question).collect::<Vec<_>>(),
        ["second", "third"]
    );
}

#[tokio::test]
async fn two_tenants_with_the_same_document_session_and_run_never_see_each_other() {
    let store = store().await;
    let (a, b, nobody) = (tenant("a"), tenant("b"), tenant("nobody"));
    let (id, run) = (DocumentId::new("manual"), RunId::random());
    for (tenant, text) in [(&a, "of a"), (&b, "of b, longer")] {
        let turn = ChatTurn {
            question: text.to_owned(),
            ..turn(run, "session", "2026-11-22T10:00:00Z")
        };
        store.records.write(tenant, &turn).await.unwrap();
        store
            .records
            .accept(tenant, &id, "manual.txt", FileType::Txt, text.as_bytes())
            .await
            .unwrap();
    }

    for (tenant, text) in [(&a, "of a"), (&b, "of b, longer")] {
        let turns = store.records.session(tenant, "session", 10).await.unwrap();
        assert_eq!(turns.into_iter().map(|turn| turn.question).collect::<Vec<_>>(), [text]);
        let document = Documents::get(&store.records, tenant, &id).await.unwrap().unwrap();
        assert_eq!(document.file_size, text.len() as u64);
        let staged = store.records.staged(tenant, &id, 1, Staged::File).await.unwrap();
        assert_eq!(staged.as_deref(), Some(text.as_bytes()));
        assert_eq!(store.records.list(tenant, 10, None).await.unwrap().documents.len(), 1);
        assert_eq!(store.records.count(tenant).await.unwrap(), 1);
        assert_eq!(booked(&store.pool, tenant.as_str(), "total_messages").await, 2);
    }
    assert_eq!(store.records.owners(&id).await.unwrap(), [a.clone(), b.clone()]);
    let unfinished = store.records.unfinished(10).await.unwrap();
    let left: Vec<_> = unfinished
        .iter()
        .map(|left| (&left.tenant, &left.document, left.version))
        .collect();
    assert!(left.contains(&(&a, &id, 1)) && left.contains(&(&b, &id, 1)), "{left:?}");
    assert!(store.records.session(&nobody, "session", 10).await.unwrap().is_empty());
    assert!(
        store
            .records
            .staged(&nobody, &id, 1, Staged::File)
            .await
            .unwrap()
            .is_none()
    );
    assert!(!store.records.delete(&nobody, &id).await.unwrap());

    store.records.unstage(&a, &id, 1).await.unwrap();
    assert!(store.records.delete(&a, &id).await.unwrap());
    assert!(Documents::get(&store.records, &b, &id).await.unwrap().is_some());
    assert!(store.records.staged(&b, &id, 1, Staged::File).await.unwrap().is_some());
}

fn client(id: &str) -> Client {
    Client {
        tenant: tenant(id),
        tier: Tier::Paid,
        status: ClientStatus::Active,
        unlimited: true,
        settings: ClientSettings {
            model: Some(ModelName::new("gpt-4o-mini")),
            system_prompt: Some("Be brief.".to_owned()),
            allowed_domains: vec!["example.com".to_owned(), "*.example.org".to_owned()],
            hourly_limit: Some(7),
            language: Some(Language::parse("de").unwrap()),
            ..ClientSettings::default()
        },
    }
}

#[tokio::test]
async fn a_client_is_found_by_its_key_and_keeps_the_key_when_changed() {
    let store = store().await;
    let key = store.records.put(&client("a")).await.unwrap();
    let changed = Client {
        tier: Tier::Free,
        status: ClientStatus::Paused,
        unlimited: false,
        settings: ClientSettings::default(),
        ..client("a")
    };

    let same_key = store.records.put(&changed).await.unwrap();
    let key_of_b = store.records.put(&client("b")).await.unwrap();

    assert!(key.starts_with("pk_live_") && key.len() >= 40, "{key}");
    assert_eq!(key, same_key);
    assert_ne!(key, key_of_b);
    assert_eq!(store.records.by_key(&key).await.unwrap(), Some(changed.clone()));
    assert_eq!(store.records.by_id("a").await.unwrap(), Some(changed));
    assert_eq!(store.records.by_key(&key_of_b).await.unwrap(), Some(client("b")));
    assert_eq!(store.records.by_key("pk_live_").await.unwrap(), None);
}

#[tokio::test]
async fn everything_is_there_after_the_file_is_opened_again() {
    let Store {
        records,
        pool: first,
        folder,
    } = store().await;
    let key = records.put(&client("a")).await.unwrap();
    let written = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    records.write(&tenant("a"), &written).await.unwrap();
    records
        .accept(&tenant("a"), &DocumentId::new("m"), "m.txt", FileType::Txt, b"one")
        .await
        .unwrap();
    first.close().await;

    let again = SqliteRecords::open(pool(&folder).await).await.unwrap();

    assert_eq!(again.by_key(&key).await.unwrap(), Some(client("a")));
    assert_eq!(again.session(&tenant("a"), "s", 10).await.unwrap(), [written]);
    assert!(
        again
            .staged(&tenant("a"), &DocumentId::new("m"), 1, Staged::File)
            .await
            .unwrap()
            .is_some()
    );
    again.ping().await.unwrap();
}

#[tokio::test]
async fn a_file_written_by_a_newer_program_is_refused_with_the_remedy() {
    let store = store().await;
    sqlx::query("INSERT INTO records_migrations VALUES (9999, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 0)")
        .execute(&store.pool)
        .await
        .unwrap();

    let error = SqliteRecords::open(store.pool.clone()).await.unwrap_err();

    assert!(matches!(error, ServiceError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("a new data folder"), "{error}");
}
