//! The shared database as others leave it: older, foreign, written by its owner, gone for a while.

use stepgraph::RunId;
use stepgraph_nodes::service::{
    ClientStatus, Document, DocumentId, DocumentStatus, FileType, ModelName, Records, Secret, ServiceError, Tier,
    postgres::{ClientWrites, PostgresRecords},
};
use uuid::Uuid;

use super::express::{SCHEMA, database, execute, options, raw, records, store};
use crate::facts::{tenant, turn};

/// What the owner has put there: a tenant with a widget and a document, and another with one of its own.
const BY_OWNER: &str = "
    INSERT INTO users (id, username, password) VALUES ('u', 'owner', 'x');
    INSERT INTO clients (id, user_id, name, public_api_key, allowed_domains, tier)
      VALUES ('a', 'u', 'A', 'pk_live_a', '[\"a.example\"]', 'paid'), ('b', 'u', 'B', 'pk_live_b', '[]', 'free');
    INSERT INTO client_widgets (client_id, model, system_prompt) VALUES ('a', 'gpt-4o', 'Be kind.');
    INSERT INTO documents (id, client_id, filename, original_name, file_type, file_size)
      VALUES ('manual', 'a', 'm.txt', 'm.txt', 'txt', 3), ('other', 'b', 'o.txt', 'o.txt', 'txt', 3);";

/// As the service was before it had tiers, documents and a log.
const OLDER: &str = "
    CREATE TABLE users (id varchar PRIMARY KEY DEFAULT gen_random_uuid(), username text NOT NULL UNIQUE,
      password text NOT NULL);
    CREATE TABLE clients (id varchar PRIMARY KEY, user_id varchar NOT NULL REFERENCES users(id), name text NOT NULL,
      public_api_key varchar NOT NULL UNIQUE, allowed_domains jsonb NOT NULL DEFAULT '[]',
      status varchar NOT NULL DEFAULT 'active');
    CREATE TABLE client_widgets (client_id varchar NOT NULL UNIQUE REFERENCES clients(id));
    INSERT INTO users (id, username, password) VALUES ('u', 'owner', 'x');
    INSERT INTO clients (id, user_id, name, public_api_key) VALUES ('a', 'u', 'A', 'pk_live_a');
    INSERT INTO client_widgets (client_id) VALUES ('a');";

async fn owned() -> (Records, String) {
    let url = database(SCHEMA).await;
    execute(&url, BY_OWNER).await;
    (Records::of(store(&url, ClientWrites::Refused).await), url)
}

#[tokio::test]
async fn an_older_deployment_is_served_and_told_what_it_lacks() {
    let url = database(OLDER).await;
    let store = store(&url, ClientWrites::Refused).await;
    let gaps = store.gaps();
    let records = Records::of(store);
    let a = tenant("a");

    let client = records.clients.by_key("pk_live_a").await.unwrap().unwrap();
    assert_eq!((client.tier, client.settings.model), (Tier::Free, None));
    let turn = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    records.log.write(&a, &turn).await.unwrap();
    records.log.write(&a, &turn).await.unwrap();
    let hours = records.usage.hours(&a, turn.asked_at.date_naive()).await.unwrap();
    assert_eq!((hours.len(), hours[0].request_count), (1, 1));
    let accepted = records
        .documents
        .accept(&a, &DocumentId::new("m"), "m.txt", FileType::Txt, b"x")
        .await;
    assert_eq!(accepted.unwrap().version, 1);
    assert_eq!(records.log.delete_before(&a, turn.asked_at, 10).await.unwrap(), 0);

    let told = gaps.join("\n");
    for lacking in [
        "clients.tier",
        "client_widgets.model",
        "`documents`",
        "`chat_logs`",
        "`usage_stats`",
    ] {
        assert!(told.contains(lacking), "{lacking}: {told}");
    }
    assert!(
        gaps.iter()
            .all(|gap| gap.contains("apply the migrations of the Express service"))
    );
    let refused = records.log.session(&a, "s", 1).await.unwrap_err();
    assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");
}

#[tokio::test]
async fn a_current_deployment_lacks_nothing() {
    let url = database(SCHEMA).await;
    assert_eq!(store(&url, ClientWrites::Refused).await.gaps(), Vec::<String>::new());
    let migrations = PostgresRecords::migrations(&Secret::new(&url)).await.unwrap();
    assert!(!migrations.is_empty() && migrations.iter().all(|(.., is_applied)| *is_applied));
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_with_the_remedy() {
    let url = database("CREATE TABLE cats (name text)").await;
    let before = PostgresRecords::migrations(&Secret::new(&url)).await.unwrap();
    assert!(before.iter().all(|(.., is_applied)| !is_applied));

    let refused = PostgresRecords::open(&Secret::new(&url), options(ClientWrites::Refused)).await;

    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("table `clients`") && refused.contains("DATABASE_URL"),
        "{refused}"
    );
}

#[tokio::test]
async fn tables_of_a_newer_program_are_refused() {
    let url = database(SCHEMA).await;
    drop(store(&url, ClientWrites::Refused).await);
    execute(
        &url,
        "INSERT INTO stepgraph_records_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, '\\x00', 0)",
    )
    .await;

    let refused = PostgresRecords::open(&Secret::new(&url), options(ClientWrites::Refused)).await;
    assert!(matches!(refused, Err(ServiceError::Mismatch { .. })), "{refused:?}");
    let refused = PostgresRecords::migrations(&Secret::new(&url)).await.unwrap_err();
    assert!(refused.to_string().contains("9999"), "{refused}");
}

#[tokio::test]
async fn what_the_owner_sets_is_seen_and_ours_lies_over_it() {
    let (records, url) = owned().await;
    let clients = &records.clients;
    let found = clients.by_key("pk_live_a").await.unwrap().unwrap();
    assert_eq!(found.tier, Tier::Paid);
    assert_eq!(found.settings.model, Some(ModelName::new("gpt-4o")));
    assert_eq!(found.settings.system_prompt.as_deref(), Some("Be kind."));
    assert_eq!(found.settings.max_tokens, Some(1000));
    assert_eq!(found.settings.allowed_domains, ["a.example"]);

    let mut ours = found.settings;
    ours.model = Some(ModelName::new("local"));
    ours.max_tokens = None;
    clients.set(&tenant("a"), &ours).await.unwrap();
    execute(
        &url,
        "UPDATE client_widgets SET model = 'gpt-9', system_prompt = 'Be brief.';
         ALTER TABLE clients ADD hourly_limit integer DEFAULT 250, ADD hard_cap_enabled boolean DEFAULT true,
           ADD overage_rate_cents integer DEFAULT 20, ADD alert_threshold numeric DEFAULT 0.80, ADD alert_email text",
    )
    .await;

    let settings = clients.by_id("a").await.unwrap().unwrap().settings;
    assert_eq!(settings.model, Some(ModelName::new("local")), "ours");
    assert_eq!(settings.max_tokens, None, "taken away by ours");
    assert_eq!(
        settings.system_prompt.as_deref(),
        Some("Be brief."),
        "the owner's newest"
    );
    assert_eq!(
        (
            settings.hourly_limit,
            settings.hard_cap,
            settings.overage_cents_per_hundred,
            settings.alert_threshold_percent
        ),
        (Some(250), true, Some(20), Some(80))
    );
}

#[tokio::test]
async fn the_owners_table_of_clients_is_written_only_where_that_is_allowed() {
    let (records, url) = owned().await;
    let (a, clients) = (tenant("a"), &records.clients);
    let known = clients.by_id("a").await.unwrap().unwrap();

    assert_eq!(
        clients.put(&known).await.unwrap(),
        "pk_live_a",
        "nothing of theirs changes"
    );
    let mut paused = known.clone();
    paused.status = ClientStatus::Paused;
    let mut new = known;
    new.tenant = tenant("new");
    for refused in [
        clients.put(&paused).await.err(),
        clients.put(&new).await.err(),
        clients.set_status(&a, ClientStatus::Paused).await.err(),
        clients.rotate_key(&a).await.err(),
        records.data.erase(&a).await.err(),
    ] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("--write-clients"), "{refused}");
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM clients WHERE status = 'active'")
        .fetch_one(&mut raw(&url).await)
        .await
        .unwrap();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn the_owner_sees_how_its_documents_stand_and_what_was_said() {
    let (records, url) = owned().await;
    let (a, id) = (tenant("a"), DocumentId::new("manual"));
    let accept = |id: DocumentId| {
        let (documents, a) = (records.documents.clone(), a.clone());
        async move { documents.accept(&a, &id, "m.txt", FileType::Txt, b"abc").await.unwrap() }
    };
    let document = accept(id.clone()).await;
    // The other tenant's row has this id: it must not be touched.
    accept(DocumentId::new("other")).await;
    let done = Document {
        status: DocumentStatus::Completed,
        progress: 100,
        chunks_total: Some(1),
        point_ids: vec![Uuid::from_u128(1)],
        ..document
    };
    records.documents.progress(&a, &done).await.unwrap();
    let one = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    records.log.write(&a, &one).await.unwrap();

    let mut connection = raw(&url).await;
    let rows: Vec<(String, String, i32, Option<i32>, bool)> = sqlx::query_as(
        "SELECT id, status, progress, chunks_total, processed_at IS NOT NULL FROM documents ORDER BY id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(
        rows,
        [
            ("manual".to_owned(), "completed".to_owned(), 100, Some(1), true),
            ("other".to_owned(), "pending".to_owned(), 0, None, false)
        ]
    );
    let logged: Vec<(String, String, Option<i32>, Option<String>)> =
        sqlx::query_as("SELECT role, content, total_tokens, trace_id FROM chat_logs ORDER BY role DESC")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let run = Some(one.run.to_string());
    assert_eq!(
        logged,
        [
            ("user".to_owned(), one.question, None, run.clone()),
            ("assistant".to_owned(), one.answer, Some(120), run)
        ]
    );
}

#[tokio::test]
async fn a_zero_character_does_not_keep_a_turn_out_of_the_log() {
    let (records, _) = owned().await;
    let mut odd = turn(RunId::random(), "s\0", "2026-11-22T10:00:00Z");
    odd.question = "a\0b".to_owned();
    odd.sources[0].title = "t\0".to_owned();

    records.log.write(&tenant("a"), &odd).await.unwrap();

    let read = records.log.session(&tenant("a"), "s\0", 1).await.unwrap();
    assert_eq!(read[0].question, "a\u{fffd}b");
    assert_eq!(records.clients.by_key("pk\0").await.unwrap(), None);
}

#[tokio::test]
async fn a_turn_of_a_tenant_that_is_not_there_is_refused_with_the_remedy() {
    let records = records(SCHEMA).await;

    let turn = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");

    let refused = records.log.write(&tenant("nobody"), &turn).await.unwrap_err();

    assert!(
        refused.to_string().contains("`clients`") && !refused.is_retryable(),
        "{refused}"
    );
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = stepgraph_live::Postgres::start().unwrap();
    let url = server.database().await.unwrap();
    execute(&url, SCHEMA).await;
    execute(&url, BY_OWNER).await;
    let records = Records::of(store(&url, ClientWrites::Refused).await);
    let one = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    records.log.write(&tenant("a"), &one).await.unwrap();

    server.kill().unwrap();
    let away = records.log.write(&tenant("a"), &one).await.unwrap_err();
    assert!(away.is_retryable(), "{away}");
    server.start_again().unwrap();

    records.log.write(&tenant("a"), &one).await.unwrap();
    assert_eq!(records.log.session(&tenant("a"), "s", 10).await.unwrap(), [one]);
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_without_its_password() {
    for url in ["postgres://user:s3cret@[", "postgres://user:s3cret@localhost:1/nowhere"] {
        let refused = PostgresRecords::open(&Secret::new(url), options(ClientWrites::Refused)).await;
        let refused = refused.unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused:?}");
    }
}
