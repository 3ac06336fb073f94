//! Large values on both servers: kept once, compressed, gone with the last checkpoint that held them.

use std::{cell::Cell, sync::Arc};

use redis::Client;
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use stepgraph::{
    Checkpointer,
    checkpoint::{self, At, Commit, Keep, NewCheckpoint, Payload, Seq},
};
use stepgraph_checkpoint::{
    Durability, LARGE_VALUE_BYTES, Postgres, PostgresOptions, Redis, RedisOptions, Sealed, conformance,
    seal::{KeyId, MasterKeys},
};
use stepgraph_live::{Fsync, Redis as Server};

use super::ground::{checkpoint as plain, everything, key, only};

#[path = "../contract/large_values.rs"]
mod large_values;

use large_values::{WRITTEN, hundred_steps, words};

fn keys() -> MasterKeys {
    MasterKeys::new(KeyId(1), &[7; 32])
}

fn named(schema: &str, values_from: usize) -> PostgresOptions {
    PostgresOptions::default()
        .durability(Durability::Normal)
        .connections_max(2)
        .values_from(values_from)
        .schema(schema)
}

async fn raw(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

/// What the rows of a schema take, as they are stored.
async fn rows(connection: &mut PgConnection, schema: &str) -> u64 {
    let bytes = format!(
        "SELECT ((SELECT coalesce(sum(pg_column_size(v.*)), 0) FROM {schema}.checkpoint_values v) + \
         (SELECT coalesce(sum(pg_column_size(c.*)), 0) FROM {schema}.checkpoints c) + \
         (SELECT coalesce(sum(pg_column_size(t.*)), 0) FROM {schema}.checkpoint_threads t))::BIGINT"
    );
    let bytes: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(bytes))
        .fetch_one(connection)
        .await
        .unwrap();
    bytes.unsigned_abs()
}

/// What the keys of a prefix take, with what the server adds.
async fn keys_of(client: &Client, prefix: &str) -> u64 {
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut all = redis::cmd("KEYS");
    let keys: Vec<Vec<u8>> = all
        .arg(format!("{prefix}*"))
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut bytes = 0;
    for key in &keys {
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        bytes += usage.query_async::<u64>(&mut connection).await.unwrap();
    }
    bytes
}

#[tokio::test]
async fn postgres_keeps_a_large_value_once_and_lets_it_go_with_the_last_that_held_it() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let count = Cell::new(0);
    let newest = || format!("size{}", count.get());
    let make = async || {
        count.set(count.get() + 1);
        Postgres::open_with(&url, named(&newest(), LARGE_VALUE_BYTES))
            .await
            .unwrap()
    };
    let bytes = async |_: &Postgres| rows(&mut raw(&url).await, &newest()).await;
    let report = conformance::check_sizes(make, bytes).await;
    assert!(report.passed(), "{report}");
    let make = async || Sealed::new(make().await, keys());
    let bytes = async |_: &Sealed<Postgres>| rows(&mut raw(&url).await, &newest()).await;
    let report = conformance::check_sizes(make, bytes).await;
    assert!(report.passed(), "sealed: {report}");
}

#[tokio::test]
async fn redis_keeps_a_large_value_once_and_lets_it_go_with_the_last_that_held_it() {
    let server = Server::start(Fsync::Never).unwrap();
    let client = Client::open(server.url()).unwrap();
    let count = Cell::new(0);
    let newest = || format!("size{}:", count.get());
    let make = async || {
        count.set(count.get() + 1);
        let options = RedisOptions::default().prefix(newest());
        Redis::open_with(&server.url(), &options).await.unwrap()
    };
    let report = conformance::check_sizes(make, async |_: &Redis| keys_of(&client, &newest()).await).await;
    assert!(report.passed(), "{report}");
    let make = async || Sealed::new(make().await, keys());
    let bytes = async |_: &Sealed<Redis>| keys_of(&client, &newest()).await;
    let report = conformance::check_sizes(make, bytes).await;
    assert!(report.passed(), "sealed: {report}");
}

#[tokio::test]
async fn both_hold_to_every_fact_whatever_is_large() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let server = Server::start(Fsync::Never).unwrap();
    let count = Cell::new(0);
    let next = || {
        count.set(count.get() + 1);
        format!("every{}", count.get())
    };
    let report = conformance::check(async || Postgres::open_with(&url, named(&next(), 1)).await.unwrap()).await;
    assert!(report.passed(), "PostgreSQL: {report}");
    let make = async || {
        let options = RedisOptions::default().prefix(next()).values_from(1);
        Redis::open_with(&server.url(), &options).await.unwrap()
    };
    let report = conformance::check(make).await;
    assert!(report.passed(), "Redis: {report}");
}

/// What a thread takes whose states hold a text of 100 kB, over a hundred steps that each write another field.
#[tokio::test]
async fn a_hundred_steps_beside_a_large_text_take_little_more_than_what_they_write() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let server = Server::start(Fsync::Never).unwrap();
    let client = Client::open(server.url()).unwrap();
    for (note_bytes, runs, [_, postgres_most, redis_most]) in WRITTEN {
        let (mut postgres, mut redis) = ([0; 2], [0; 2]);
        for (at, values_from) in [usize::MAX, LARGE_VALUE_BYTES].into_iter().enumerate() {
            let name = format!("steps{note_bytes}_{runs}_{values_from}");
            let store = Postgres::open_with(&url, named(&name, values_from)).await.unwrap();
            hundred_steps(store, note_bytes, runs).await;
            postgres[at] = rows(&mut raw(&url).await, &name).await;
            let options = RedisOptions::default().prefix(&name).values_from(values_from);
            let store = Redis::open_with(&server.url(), &options).await.unwrap();
            hundred_steps(store, note_bytes, runs).await;
            redis[at] = keys_of(&client, &name).await;
        }
        for (store, sizes, most) in [("PostgreSQL", postgres, postgres_most), ("Redis", redis, redis_most)] {
            let [whole, apart] = sizes;
            println!("{store}, notes of {note_bytes} bytes in {runs} runs: {whole} bytes whole, {apart} apart");
            assert!(apart <= most, "{store}: {apart} bytes, at most {most}");
            // A value that is there once, which the server makes shorter anyway, has a row and a name more.
            assert!(apart < whole + 500, "{store}: {sizes:?}");
        }
    }
}

fn state(text: &str) -> Arc<[u8]> {
    let mut bytes = b"\x81\xa4text\xdb".to_vec();
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

fn snapshot(number: u64, text: &str) -> NewCheckpoint {
    NewCheckpoint {
        payload: Payload::Snapshot(state(text)),
        ..plain(number)
    }
}

/// A writer goes on with the same few values while the thread is thinned again and again.
async fn thinned_beside_a_writer(store: Arc<dyn Checkpointer>) {
    const WRITTEN: u64 = 60;
    let key = key("busy");
    let epoch = store.claim(&key).await.unwrap();
    let writer = tokio::spawn({
        let (store, key) = (store.clone(), key.clone());
        async move {
            let mut head = None;
            for number in 1..=WRITTEN {
                let text = words(u32::try_from(number % 3).unwrap(), 20_000);
                let commit = Commit {
                    checkpoint: Some(snapshot(number, &text)),
                    ..everything(number)
                };
                let commit = if head.is_none() {
                    only(snapshot(number, &text))
                } else {
                    commit
                };
                head = store.commit(&key, epoch, head, commit).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let now = chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(1);
        // A head that was one no more when it was to go.
        match checkpoint::thin(&*store, &key, Keep::last(1), now).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.code(), "checkpoint::in_use"),
        }
        if let Some(found) = store.get(&key, At::Head).await.unwrap() {
            let number = u32::try_from(found.info.seq.0 % 3).unwrap();
            assert_eq!(found.parts, [state(&words(number, 20_000))]);
        }
    }
    writer.await.unwrap();
    let found = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(found.info.seq, Seq(WRITTEN));
    assert_eq!(found.parts, [state(&words(0, 20_000))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thread_is_thinned_beside_a_writer_of_large_values() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let store = Postgres::open_with(&url, named("busy", LARGE_VALUE_BYTES))
        .await
        .unwrap();
    thinned_beside_a_writer(Arc::new(store)).await;
    let server = Server::start(Fsync::Never).unwrap();
    thinned_beside_a_writer(Arc::new(Redis::open(&server.url()).await.unwrap())).await;
}

/// What a release before large values has written reads as it was, and goes on.
#[tokio::test]
async fn a_database_of_before_reads_as_it_was_and_goes_on() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let mut migrator = sqlx::migrate!("./migrations/postgres");
    migrator.migrations = migrator.iter().take(2).cloned().collect();
    let mut migrator = sqlx::migrate::Migrator { ..migrator };
    migrator.dangerous_set_table_name("checkpoint_migrations");
    let mut connection = raw(&url).await;
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    let before = "
        INSERT INTO checkpoint_threads (epoch, last, head, tenant, thread, namespace)
        VALUES (nextval('checkpoint_epochs'), 2, 2, 'acme', 't', '');
        INSERT INTO checkpoints (thread, seq, parent, step, created_at, state_version, id, fingerprint, snapshot, source, frontier, payload, parts)
        VALUES (1, 1, NULL, -1, 1, 1, gen_random_uuid(), gen_random_uuid(), TRUE, 'input', 'f', '', ARRAY['whole', 'more']::BYTEA[]),
        (1, 2, 1, 1, 2, 1, gen_random_uuid(), gen_random_uuid(), FALSE, 'step', 'f', 'change', NULL)";
    sqlx::raw_sql(before).execute(&mut connection).await.unwrap();

    let store = Postgres::open(&url).await.unwrap();

    let parts = async |seq| store.get(&key("t"), At::Seq(Seq(seq))).await.unwrap().unwrap().parts;
    let old: [Arc<[u8]>; 3] = [b"whole".as_slice(), b"more", b"change"].map(Arc::from);
    assert_eq!(parts(2).await, old);
    let epoch = store.claim(&key("t")).await.unwrap();
    let text = words(1, 20_000);
    let change = NewCheckpoint {
        payload: Payload::Delta(state(&text)),
        ..plain(3)
    };
    store
        .commit(&key("t"), epoch, Some(Seq(2)), only(change))
        .await
        .unwrap();
    assert_eq!(parts(3).await, [&old[..], &[state(&text)]].concat());
}

/// The same in Redis: what stands there has no large values, and the version is an older one.
#[tokio::test]
async fn keys_of_before_read_as_they_were_and_go_on() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let epoch = store.claim(&key("t")).await.unwrap();
    store.commit(&key("t"), epoch, None, only(plain(1))).await.unwrap();
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let payloads = "stepgraph:payloads:acme/t/";
    for (field, payload) in [("1", "W\n5,4,\nwholemore"), ("version", "3")] {
        let mut set = redis::cmd(if field == "1" { "HSET" } else { "SET" });
        if field == "1" {
            set.arg(payloads).arg(field).arg(payload);
        } else {
            set.arg("stepgraph:version").arg(payload);
        }
        set.exec_async(&mut connection).await.unwrap();
    }
    let store = Redis::open(&server.url()).await.unwrap();
    let text = words(1, 20_000);
    let change = NewCheckpoint {
        payload: Payload::Delta(state(&text)),
        ..plain(2)
    };
    store
        .commit(&key("t"), epoch, Some(Seq(1)), only(change))
        .await
        .unwrap();
    let found = store.get(&key("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(
        found.parts,
        [b"whole".as_slice().into(), b"more".as_slice().into(), state(&text)]
    );
    let version: String = redis::cmd("GET")
        .arg("stepgraph:version")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(version, "4");
}
