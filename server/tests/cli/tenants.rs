//! The life of a tenant, on the command line.

use super::support::{Home, Ran};

const MANUAL: &str = "The warranty of the kettle lasts two years from the day of purchase.";

/// A home whose tenant `acme` has a document and a chat.
fn lived_in() -> Home {
    let home = Home::with_tenant();
    home.run(["tenant", "add", "other"]).ok();
    let file = home.write("manual.txt", MANUAL);
    for tenant in ["acme", "other"] {
        home.run(["ingest", &file.to_string_lossy(), "--tenant", tenant]).ok();
        home.run(["chat", "--tenant", tenant, "how long is the warranty?"]).ok();
    }
    home
}

fn shown(home: &Home, tenant: &str) -> serde_json::Value {
    home.run(["tenant", "show", tenant, "--json"]).ok().json().remove(0)
}

#[test]
fn a_tenant_is_set_paused_and_shown_beside_the_others() {
    let home = Home::with_tenant();
    home.run(["tenant", "add", "other"]).ok();

    home.run([
        "tenant",
        "set",
        "acme",
        "hourly-limit=7",
        "model=gpt-4o",
        "hard-cap=true",
    ])
    .ok();
    home.run(["tenant", "pause", "acme"]).ok();

    let acme = shown(&home, "acme");
    assert_eq!(acme["settings"]["hourlyLimit"], 7);
    assert_eq!(
        (&acme["status"], &acme["settings"]["model"]),
        (&"paused".into(), &"gpt-4o".into())
    );
    let other = shown(&home, "other");
    assert_eq!(
        (&other["status"], &other["settings"]),
        (&"active".into(), &serde_json::json!({}))
    );
    let listed = home.run(["tenant", "list"]).ok();
    assert!(
        listed.stdout.contains("acme") && listed.stdout.contains("paused"),
        "{listed:?}"
    );
    home.run(["tenant", "resume", "acme"]).ok();
    assert_eq!(shown(&home, "acme")["status"], "active");
    let refused = home.run(["tenant", "set", "acme", "modell=x"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    home.run(["tenant", "pause", "nobody"]).refused();
}

#[test]
fn a_new_key_takes_the_place_of_the_old_one() {
    let home = Home::with_tenant();
    let old = shown(&home, "acme")["key"].clone();

    let new = home.run(["tenant", "rotate-key", "acme"]).ok().stdout;

    assert_ne!(old, new.trim());
    assert_eq!(shown(&home, "acme")["key"], new.trim());
}

#[test]
fn what_is_kept_of_a_tenant_is_taken_out_and_then_erased() {
    let home = lived_in();
    let exported = home.run(["tenant", "export", "acme"]).ok();
    let rows = exported.json();
    for table in ["clients", "documents", "chat_logs", "usage_hourly"] {
        assert!(rows.iter().any(|row| row["table"] == table), "{table}: {exported:?}");
    }
    assert!(!exported.stdout.contains("\"other\""), "{exported:?}");

    let asked = home.run(["tenant", "erase", "acme"]);
    assert_eq!(asked.code, Some(2), "{asked:?}");
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    assert_eq!(shown(&home, "acme")["documents"], 1, "asking deletes nothing");
    let erased = home.run(["tenant", "erase", "acme", "--yes", "--json"]).ok().json();

    let counts = erased[0]["rows"].as_array().unwrap();
    for table in ["clients", "documents", "chat_logs", "chunks"] {
        let counted = counts.iter().find(|row| row["table"] == table).unwrap();
        assert!(counted["rows"].as_u64().unwrap() > 0, "{table}: {erased:?}");
    }
    home.run(["tenant", "show", "acme"]).refused();
    for file in ["stepgraph.db", "vectors.db"] {
        // Neither the pages of deleted rows nor the log beside the file holds any text of theirs.
        for name in [file.to_owned(), format!("{file}-wal")] {
            let bytes = std::fs::read(home.data().join(&name)).unwrap_or_default();
            assert!(!bytes.windows(4).any(|four| four == b"acme"), "{name}");
        }
        assert_eq!(rows_with(&home, file, "acme"), 0, "{file}");
        assert!(rows_with(&home, file, "other") > 0, "{file}");
    }
    assert_eq!(shown(&home, "other")["documents"], 1);
}

#[test]
fn the_key_of_a_sealed_tenant_is_destroyed_with_it() {
    const KEY: &str = "1:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
    let home = lived_in();
    let sealed = |arguments: &[&str]| Ran::of(home.command(arguments).env("STEPGRAPH_CHECKPOINTS_KEY", KEY));
    for tenant in ["acme", "other"] {
        let session = "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e6f";
        sealed(&[
            "chat",
            "--tenant",
            tenant,
            "--session",
            session,
            "how long is the warranty?",
        ])
        .ok();
    }
    assert_eq!(keys(&home), [("acme".to_owned(), true), ("other".to_owned(), true)]);

    sealed(&["tenant", "erase", "acme", "--yes"]).ok();

    assert_eq!(keys(&home), [("acme".to_owned(), false), ("other".to_owned(), true)]);
    // A copy of the data is without the keys: whoever has it alone reads no thread.
    let copy = home.data().with_file_name("copy");
    sealed(&["backup", &copy.to_string_lossy()]).ok();
    assert!(copy.join("stepgraph.db").is_file() && !copy.join("keys.db").exists());
}

/// Each tenant that has had a key, and whether it still has.
fn keys(home: &Home) -> Vec<(String, bool)> {
    use sqlx::{Connection as _, SqliteConnection};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let path = format!("sqlite://{}", home.data().join("keys.db").display());
        let mut connection = SqliteConnection::connect(&path).await.unwrap();
        let keys = "SELECT tenant, wrapped IS NOT NULL FROM tenant_keys ORDER BY tenant";
        sqlx::query_as(keys).fetch_all(&mut connection).await.unwrap()
    })
}

/// How many rows of all tables hold this text in any of their columns.
fn rows_with(home: &Home, file: &str, text: &str) -> i64 {
    use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = format!("sqlite://{}", home.data().join(file).display());
        let mut connection = SqliteConnection::connect(&path).await.unwrap();
        let columns: Vec<(String, String)> = sqlx::query_as(
            "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut found = 0;
        for (table, column) in columns {
            let count = format!("SELECT count(*) FROM \"{table}\" WHERE CAST(\"{column}\" AS TEXT) = '{text}'");
            found += sqlx::query_scalar::<_, i64>(AssertSqlSafe(count))
                .fetch_one(&mut connection)
                .await
                .unwrap();
        }
        found
    })
}

#[test]
fn documents_are_listed_and_deleted() {
    let home = lived_in();
    let listed = home
        .run(["documents", "list", "--tenant", "acme", "--json"])
        .ok()
        .json();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["status"], "completed");
    let id = listed[0]["id"].as_str().unwrap();

    let deleted = home
        .run(["documents", "delete", id, "--tenant", "acme", "--json"])
        .ok()
        .json();

    assert!(deleted[0]["pointsDeleted"].as_u64().unwrap() > 0, "{deleted:?}");
    assert!(
        home.run(["documents", "list", "--tenant", "acme", "--json"])
            .ok()
            .json()
            .is_empty()
    );
    assert_eq!(
        home.run(["documents", "list", "--tenant", "other", "--json"])
            .ok()
            .json()
            .len(),
        1
    );
    home.run(["documents", "delete", id, "--tenant", "acme"]).refused();
    let kept = home.run(["documents", "retry", id, "--tenant", "other"]);
    assert_eq!(kept.code, Some(2), "{kept:?}");
    assert!(kept.stderr.contains("ingest it again"), "{kept:?}");
}

#[test]
fn chats_older_than_the_tenant_says_are_deleted() {
    let home = lived_in();
    let young = home.run(["tenant", "expire", "--json"]).ok().json();
    assert_eq!(young[0]["deleted"], 0);
    age(&home);

    home.run(["tenant", "set", "acme", "retention-days=10"]).ok();
    let expired = home.run(["tenant", "expire", "--json"]).ok().json();

    assert_eq!(expired[0]["deleted"], 1);
    let left = home.run(["tenant", "export", "other"]).ok();
    assert!(
        left.json().iter().any(|row| row["table"] == "chat_logs"),
        "the default keeps it"
    );
    let operator = Ran::of(
        home.command(["tenant", "expire", "--json"])
            .env("STEPGRAPH_RETENTION_DAYS", "15"),
    );
    assert_eq!(operator.ok().json()[0]["deleted"], 1);
}

/// Lets all chats be twenty days older.
fn age(home: &Home) {
    use sqlx::{Connection as _, SqliteConnection};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = format!("sqlite://{}", home.data().join("stepgraph.db").display());
        let mut connection = SqliteConnection::connect(&path).await.unwrap();
        sqlx::query("UPDATE chat_logs SET created_at = strftime('%Y-%m-%dT%H:%M:%f000Z', created_at, '-20 days')")
            .execute(&mut connection)
            .await
            .unwrap();
    });
}

#[test]
fn a_copy_brings_everything_back_and_overwrites_nothing() {
    let home = lived_in();
    let copy = home.data().with_file_name("copy");
    let copy = copy.to_string_lossy();
    home.run(["backup", &copy]).ok();
    let over = home.run(["backup", &copy]);
    assert!(over.stderr.contains("is there already"), "{over:?}");
    let onto = home.run(["restore", &copy]);
    assert_eq!(onto.code, Some(2), "{onto:?}");
    let key = shown(&home, "acme")["key"].clone();
    std::fs::remove_dir_all(home.data()).unwrap();

    home.run(["restore", &copy]).ok();

    assert_eq!(shown(&home, "acme")["key"], key);
    let answer = home
        .run(["chat", "--tenant", "acme", "how long is the warranty?", "--json"])
        .ok();
    assert!(answer.stdout.contains("two years"), "{answer:?}");
    let nothing = home.run(["restore", &home.data().with_file_name("empty").to_string_lossy()]);
    assert_ne!(nothing.code, Some(0));
}

#[test]
fn migrations_are_shown_and_all_there_once_the_folder_is_used() {
    let home = Home::with_tenant();
    let told = home.run(["migrate", "--check", "--json"]).ok().json();
    assert!(
        told.len() >= 3 && told.iter().all(|one| one["state"] == "there"),
        "{told:?}"
    );
}

mod live {
    use stepgraph_live::Postgres;

    use super::{Home, Ran};

    const SCHEMA: &str = include_str!("../../../nodes/tests/support/express_schema.sql");

    #[test]
    fn the_program_works_on_the_shared_database() {
        use sqlx::{Connection as _, PgConnection};

        let home = Home::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let url = runtime.block_on(async {
            let url = Postgres::shared().unwrap().database().await.unwrap();
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(SCHEMA).execute(&mut connection).await.unwrap();
            url
        });
        let run = |arguments: &[&str]| Ran::of(home.command(arguments).env("DATABASE_URL", &url));

        let to_come = run(&["migrate", "--check", "--json"]).ok().json();
        assert!(to_come.iter().all(|one| one["state"] == "to come"), "{to_come:?}");
        run(&["migrate"]).ok();
        let refused = run(&["tenant", "add", "acme"]).refused();
        assert!(refused.stderr.contains("--write-clients"), "{refused:?}");
        run(&["tenant", "add", "acme", "--tier", "paid", "--write-clients"]).ok();
        run(&["tenant", "set", "acme", "hourly-limit=9"]).ok();
        let file = home.write("manual.txt", super::MANUAL);
        run(&["ingest", &file.to_string_lossy(), "--tenant", "acme"]).ok();
        let answer = run(&["chat", "--tenant", "acme", "how long is the warranty?"]).ok();
        assert!(answer.stdout.contains("two years"), "{answer:?}");

        let shown = run(&["tenant", "show", "acme", "--json"]).ok().json().remove(0);
        assert_eq!(
            (&shown["tier"], &shown["settings"]["hourlyLimit"]),
            (&"paid".into(), &9.into())
        );
        assert_eq!((&shown["documents"], &shown["messagesToday"]), (&1.into(), &1.into()));
        run(&["tenant", "erase", "acme", "--yes", "--write-clients"]).ok();
        let left: i64 = runtime.block_on(async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::query_scalar("SELECT (SELECT count(*) FROM chat_logs) + (SELECT count(*) FROM clients) + (SELECT count(*) FROM stepgraph_documents)")
                .fetch_one(&mut connection)
                .await
                .unwrap()
        });
        assert_eq!(left, 0);
    }
}
