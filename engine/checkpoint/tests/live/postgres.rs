//! What holds for the PostgreSQL store beyond the facts of every store.

use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use stepgraph::{
    CheckpointError, Checkpointer,
    checkpoint::{At, Page, Seq, StoreDurability},
};
use stepgraph_checkpoint::{Durability, Postgres, PostgresOptions};
use tokio::task::JoinSet;

use super::ground::{begun, checkpoint, everything, key, only};

async fn database() -> String {
    stepgraph_live::Postgres::shared().unwrap().database().await.unwrap()
}

async fn raw(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

async fn execute(url: &str, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut raw(url).await).await.unwrap();
}

#[tokio::test]
async fn a_thread_survives_the_death_of_the_server_and_the_pool_finds_its_way_back() {
    let mut server = stepgraph_live::Postgres::start().unwrap();
    let url = server.database().await.unwrap();
    let store = Postgres::open_with(&url, PostgresOptions::default().connections_max(3))
        .await
        .unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    // Every connection of the pool is used once, and then dead.
    let readers = (0..3).map(|_| store.get(&key, At::Head));
    futures_util::future::join_all(readers).await;
    store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
    let before = store.get(&key, At::Head).await.unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    assert_eq!(store.get(&key, At::Head).await.unwrap(), before, "read by the old pool");
    server.kill().unwrap();
    server.start_again().unwrap();
    let head = store
        .commit(&key, epoch, Some(Seq(2)), only(checkpoint(3)))
        .await
        .unwrap();
    assert_eq!(head, Some(Seq(3)), "written by the old pool");
    let anew = Postgres::open(&url).await.unwrap();
    assert_eq!(anew.list(&key, Page::default()).await.unwrap().len(), 3);
    assert!(anew.claim(&key).await.unwrap() > epoch);
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_and_not_waited_for_beyond_the_limit() {
    let mut server = stepgraph_live::Postgres::start().unwrap();
    let url = server.database().await.unwrap();
    let options = PostgresOptions::default().wait_max(Duration::from_secs(2));
    let store = Postgres::open_with(&url, options).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    server.kill().unwrap();
    let down = store
        .commit(&key, epoch, Some(Seq(1)), everything(2))
        .await
        .unwrap_err();
    assert_eq!(down.code(), "checkpoint::unavailable");
    assert!(
        down.is_retryable() && down.to_string().contains("look after the server"),
        "{down}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_writers_in_several_stores_on_one_database_exactly_one_wins() {
    let url = database().await;
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(Arc::new(Postgres::open(&url).await.unwrap()));
    }
    let key = key("t");
    let epoch = begun(&*stores[0], &key).await;
    let mut writers = JoinSet::new();
    for number in 2..102 {
        let (store, key) = (stores[number % 4].clone(), key.clone());
        let commit = everything(number as u64);
        writers.spawn(async move { store.commit(&key, epoch, Some(Seq(1)), commit).await });
    }
    let outcomes = writers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let conflicts = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(CheckpointError::Conflict { .. })));
    assert_eq!(conflicts.count(), 99);
    assert_eq!(stores[1].outbox("topic", 1000).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_database_may_be_opened_by_many_at_once() {
    let url = database().await;
    let mut openers = JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        openers.spawn(async move {
            Postgres::open_with(&url, PostgresOptions::default().schema("a \"b\""))
                .await
                .map(drop)
        });
    }
    for opened in openers.join_all().await {
        opened.unwrap();
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'a \"b\"'")
        .fetch_one(&mut raw(&url).await)
        .await
        .unwrap();
    assert_eq!(tables, 8);
}

/// One thread's writer waits for another's row in vain, and nobody else does.
#[tokio::test]
async fn a_writer_that_waits_holds_up_no_other_thread_and_not_for_ever() {
    let url = database().await;
    let options = PostgresOptions::default().statement_timeout(Duration::from_secs(1));
    let store = Postgres::open_with(&url, options).await.unwrap();
    let (busy, free) = (key("busy"), key("free"));
    let epoch = begun(&store, &busy).await;
    let mut other = raw(&url).await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM checkpoint_threads WHERE thread = 'busy' FOR UPDATE")
        .execute(&mut other)
        .await
        .unwrap();
    let (waited, ()) = tokio::join!(store.commit(&busy, epoch, Some(Seq(1)), only(checkpoint(2))), async {
        let epoch = begun(&store, &free).await;
        for number in 2..20 {
            let head = Some(Seq(number - 1));
            store.commit(&free, epoch, head, everything(number)).await.unwrap();
        }
    });
    let waited = waited.unwrap_err();
    assert!(
        waited.is_retryable() && waited.to_string().contains("statement_timeout"),
        "{waited}"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let head = store.commit(&busy, epoch, Some(Seq(1)), only(checkpoint(2))).await;
    assert_eq!(head.unwrap(), Some(Seq(2)));
}

#[tokio::test]
async fn no_more_connections_are_opened_than_told_and_calls_beyond_them_wait() {
    let url = database().await;
    let options = PostgresOptions::default().connections_max(2).connections_min(1);
    let store = Postgres::open_with(&url, options).await.unwrap();
    let calls = (0..20).map(|number| {
        let (store, key) = (&store, key(&format!("t{number}")));
        async move {
            begun(store, &key).await;
        }
    });
    futures_util::future::join_all(calls).await;
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&mut raw(&url).await)
    .await
    .unwrap();
    assert!((1..=2).contains(&open), "{open} connections");
}

#[tokio::test]
async fn two_hundred_threads_are_written_side_by_side_on_one_pool() {
    let url = database().await;
    let options = PostgresOptions::default()
        .connections_max(32)
        .durability(Durability::Normal);
    let store = Postgres::open_with(&url, options).await.unwrap();
    let threads = (0..200).map(|number| {
        let (store, key) = (&store, key(&format!("t{number}")));
        async move {
            let epoch = begun(store, &key).await;
            for number in 2..=10 {
                store
                    .commit(&key, epoch, Some(Seq(number - 1)), everything(number))
                    .await
                    .unwrap();
            }
        }
    });
    futures_util::future::join_all(threads).await;
    assert_eq!(store.unfinished("graph", 1000).await.unwrap().len(), 200);
}

#[tokio::test]
async fn what_a_session_promises_is_what_the_store_says() {
    let url = database().await;
    let full = Postgres::open(&url).await.unwrap();
    assert_eq!(
        (full.durability(), Checkpointer::durability(&full)),
        (Durability::Full, StoreDurability::Machine)
    );
    let options = PostgresOptions::default().durability(Durability::Normal);
    let normal = Postgres::open_with(&url, options).await.unwrap();
    assert_eq!(Checkpointer::durability(&normal), StoreDurability::Process);
    execute(
        &url,
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END $$",
    )
    .await;
    let pool = PgPool::connect(&url).await.unwrap();
    assert_eq!(
        Postgres::new(pool).await.unwrap().durability(),
        Durability::Normal,
        "as the pool is set"
    );
    let read_only: PgConnectOptions = url.parse().unwrap();
    let read_only = PgPool::connect_with(read_only.options([("default_transaction_read_only", "on")])).await;
    let refused = Postgres::new(read_only.unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("primary"), "{refused}");
}

#[tokio::test]
async fn the_tables_are_made_where_the_sessions_of_a_pool_look_for_them() {
    let url = database().await;
    execute(&url, "CREATE SCHEMA theirs").await;
    let pool = PgPoolOptions::new()
        .after_connect(|connection, _| {
            Box::pin(async move {
                let set = sqlx::raw_sql("SET search_path TO theirs").execute(connection).await;
                set.map(drop)
            })
        })
        .connect(&url)
        .await
        .unwrap();
    let store = Postgres::new(pool).await.unwrap();
    begun(&store, &key("t")).await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM theirs.checkpoints")
        .fetch_one(&mut raw(&url).await)
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

/// The private server speaks no TLS: a session that asks for it is refused, not made without.
#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_that_was_asked_for_is_not_left_out() {
    let url = format!("{}&sslmode=require", database().await);
    let refused = Postgres::open(&url).await.unwrap_err().to_string();
    assert!(refused.contains("server does not support TLS"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_with_a_remedy_and_without_the_password() {
    let url = database().await;
    let wrong = url.replace("/test", "/nowhere");
    let refused = Postgres::open(&wrong).await.unwrap_err().to_string();
    assert!(refused.contains("make the database"), "{refused}");
    let refused = Postgres::open("postgres://user:s3cret@[").await.unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused:?}");
    assert!(refused.to_string().contains("write `postgres://"), "{refused}");
}

#[tokio::test]
async fn a_database_of_a_later_release_is_refused() {
    let url = database().await;
    drop(Postgres::open(&url).await.unwrap());
    execute(
        &url,
        "INSERT INTO checkpoint_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, '\\x00', 0)",
    )
    .await;
    let refused = Postgres::open(&url).await.unwrap_err().to_string();
    assert!(refused.contains("later release"), "{refused}");
}

#[tokio::test]
async fn rows_that_make_no_sense_are_named_and_not_guessed() {
    let damages = [
        "UPDATE checkpoints SET source = 'nonsense'",
        "UPDATE checkpoints SET created_at = 9223372036854775807",
        "UPDATE checkpoints SET state_version = -1",
        "UPDATE checkpoint_records SET kind = 'nonsense'",
        "UPDATE checkpoint_threads SET status = 'nonsense'",
    ];
    for damage in damages {
        let url = database().await;
        let store = Postgres::open(&url).await.unwrap();
        let key = key("t");
        let epoch = begun(&store, &key).await;
        store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
        execute(&url, damage).await;
        let found = store.get(&key, At::Seq(Seq(1))).await.unwrap_err();
        assert_eq!(found.code(), "checkpoint::corrupt", "{damage}: {found}");
        assert!(found.to_string().contains("acme/t"), "{found}");
    }
}

/// What PostgreSQL cannot find again it refuses to keep, and the store says what to do.
#[tokio::test]
async fn a_key_that_is_too_long_is_refused_with_a_remedy() {
    let store = Postgres::open(&database().await).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    let mut commit = everything(2);
    let digits = (0_u32..2000).map(|number| number.wrapping_mul(2_654_435_761).to_string());
    commit.records[0].key = digits.collect();
    let refused = store.commit(&key, epoch, Some(Seq(1)), commit).await.unwrap_err();
    assert!(refused.to_string().contains("shorten it"), "{refused}");
    store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
}

#[tokio::test]
async fn deleting_leaves_no_row_of_the_thread() {
    let url = database().await;
    let store = Postgres::open(&url).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
    store.branch(&key, epoch, Seq(1), "retry").await.unwrap();
    let rows = "SELECT (SELECT count(*) FROM checkpoint_threads), (SELECT count(*) FROM checkpoints), \
                (SELECT count(*) FROM checkpoint_records), (SELECT count(*) FROM checkpoint_branches), \
                (SELECT count(*) FROM checkpoint_outbox)";
    let mut connection = raw(&url).await;
    let before: (i64, i64, i64, i64, i64) = sqlx::query_as(rows).fetch_one(&mut connection).await.unwrap();
    assert_eq!(before, (1, 2, 1, 2, 1));
    store.delete(&key).await.unwrap();
    let after: (i64, i64, i64, i64, i64) = sqlx::query_as(rows).fetch_one(&mut connection).await.unwrap();
    assert_eq!(after, (0, 0, 0, 0, 0));
}

/// Deleting waits for a commit under way, and then takes what it wrote too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleting_beside_commits_leaves_no_row_behind() {
    let url = database().await;
    let store = Arc::new(Postgres::open(&url).await.unwrap());
    for round in 0..10 {
        let key = key(&format!("t{round}"));
        let epoch = begun(&*store, &key).await;
        let writer = tokio::spawn({
            let (store, key) = (store.clone(), key.clone());
            async move {
                let mut head = Some(Seq(1));
                for number in 2..100 {
                    match store.commit(&key, epoch, head, everything(number)).await {
                        Ok(new) => head = new,
                        Err(error) => return assert_eq!(error.code(), "checkpoint::fenced"),
                    }
                }
            }
        });
        store.get(&key, At::Head).await.unwrap();
        store.delete(&key).await.unwrap();
        writer.await.unwrap();
    }
    let orphans = "SELECT (SELECT count(*) FROM checkpoints) + (SELECT count(*) FROM checkpoint_records) \
                   + (SELECT count(*) FROM checkpoint_outbox)";
    let left: i64 = sqlx::query_scalar(orphans)
        .fetch_one(&mut raw(&url).await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
