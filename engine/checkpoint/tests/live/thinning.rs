//! Thinning beside writers, and what is left of a tenant after its erasure, on both servers.

use std::sync::Arc;

use redis::Client;
use stepgraph::{
    CheckpointError, Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{self, At, Commit, Keep, NewCheckpoint, Page, Payload, Seq, Thinning},
};
use stepgraph_checkpoint::{Durability, Postgres, PostgresOptions, Redis};
use stepgraph_live::Fsync;

use super::ground::{begun, checkpoint as snapshot, everything, key, only};

const WRITTEN: u64 = 120;

async fn postgres() -> (String, Arc<Postgres>) {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let options = PostgresOptions::default().durability(Durability::Normal);
    let store = Postgres::open_with(&url, options).await.unwrap();
    (url, Arc::new(store))
}

fn delta(number: u64) -> NewCheckpoint {
    NewCheckpoint {
        payload: Payload::Delta(format!("delta {number}").into_bytes().into()),
        ..snapshot(number)
    }
}

/// A writer goes on while the thread is thinned again and again, so that each delta stands on one that was rebased at some
/// time or will be.
async fn thinned_beside_a_writer(store: Arc<dyn Checkpointer>) {
    let key = key("busy");
    let epoch = begun(&*store, &key).await;
    let writer = tokio::spawn({
        let (store, key) = (store.clone(), key.clone());
        async move {
            for number in 2..=WRITTEN {
                let head = Some(Seq(number - 1));
                let written = store.commit(&key, epoch, head, only(delta(number))).await;
                assert_eq!(written.unwrap(), Some(Seq(number)));
            }
        }
    });
    let mut removed = 0;
    while !writer.is_finished() {
        let thinned = checkpoint::thin(&*store, &key, Keep::last(3), chrono::DateTime::UNIX_EPOCH).await;
        removed += thinned.unwrap().removed;
    }
    writer.await.unwrap();
    assert!(removed > 0, "nothing was thinned beside the writer");
    checkpoint::thin(&*store, &key, Keep::last(3), chrono::DateTime::UNIX_EPOCH)
        .await
        .unwrap();
    let left = store.list(&key, Page::default()).await.unwrap();
    assert_eq!(left.iter().map(|info| info.seq.0).collect::<Vec<_>>(), [120, 119, 118]);
    let parts = store.get(&key, At::Head).await.unwrap().unwrap().parts;
    assert_eq!(parts.len(), 120);
    for (number, part) in (2..=WRITTEN).zip(parts.iter().skip(1)) {
        assert_eq!(**part, *format!("delta {number}").as_bytes());
    }
}

/// A commit that names its parent, while that parent may be going: it is there and stays, or the commit is refused.
async fn no_chain_is_broken_by_a_parent_that_goes(store: Arc<dyn Checkpointer>) {
    for round in 0..30 {
        let key = key(&format!("fork{round}"));
        let epoch = begun(&*store, &key).await;
        for number in 2..=3 {
            let head = Some(Seq(number - 1));
            store.commit(&key, epoch, head, only(delta(number))).await.unwrap();
        }
        let parts = store.get(&key, At::Seq(Seq(3))).await.unwrap().unwrap().parts;
        let thinning = Thinning {
            rebased: vec![(Seq(3), parts)],
            removed: vec![Seq(1), Seq(2)],
        };
        let fork = Commit {
            parent: Some(Seq(2)),
            ..only(delta(4))
        };
        let (forked, thinned) = tokio::join!(
            tokio::spawn({
                let (store, key) = (store.clone(), key.clone());
                async move { store.commit(&key, epoch, Some(Seq(3)), fork).await }
            }),
            tokio::spawn({
                let (store, key) = (store.clone(), key.clone());
                async move { store.thin(&key, thinning).await }
            }),
        );
        let code = |refused: Option<CheckpointError>| refused.map(|refused| refused.code());
        let (forked, thinned) = (forked.unwrap(), code(thinned.unwrap().err()));
        if forked.is_ok() {
            assert_eq!(thinned, Some("checkpoint::in_use"));
            assert_eq!(store.get(&key, At::Head).await.unwrap().unwrap().parts.len(), 3);
        } else {
            assert_eq!((code(forked.err()), thinned), (Some("checkpoint::no_checkpoint"), None));
        }
    }
}

/// Two threads with everything that a thread can have, also in a graph inside, and one that is only claimed.
async fn a_tenant_with_everything(store: &dyn Checkpointer, tenant: &str) -> TenantId {
    let tenant = TenantId::authenticated(tenant).unwrap();
    for name in ["one", "two"] {
        let root = ThreadKey::new(tenant.clone(), ThreadId::new(name).unwrap());
        for key in [root.clone(), root.child("host")] {
            let epoch = begun(store, &key).await;
            store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
            let large = NewCheckpoint {
                payload: Payload::Snapshot(vec![7; 20_000].into()),
                ..snapshot(3)
            };
            let last = Commit {
                checkpoint: Some(large),
                ..everything(3)
            };
            store.commit(&key, epoch, Some(Seq(2)), last).await.unwrap();
            store.tag(&key, "release", Some(Seq(2))).await.unwrap();
            checkpoint::thin(store, &key, Keep::heads(), chrono::DateTime::UNIX_EPOCH)
                .await
                .unwrap();
            store.branch(&key, epoch, Seq(2), "retry").await.unwrap();
        }
    }
    let claimed = ThreadKey::new(tenant.clone(), ThreadId::new("claimed").unwrap());
    store.claim(&claimed).await.unwrap();
    tenant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_thinned_beside_a_writer() {
    thinned_beside_a_writer(postgres().await.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_thinned_beside_a_writer() {
    let server = stepgraph_live::Redis::start(Fsync::Never).unwrap();
    thinned_beside_a_writer(Arc::new(Redis::open(&server.url()).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_breaks_no_chain_by_a_parent_that_goes() {
    no_chain_is_broken_by_a_parent_that_goes(postgres().await.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_breaks_no_chain_by_a_parent_that_goes() {
    let server = stepgraph_live::Redis::start(Fsync::Never).unwrap();
    no_chain_is_broken_by_a_parent_that_goes(Arc::new(Redis::open(&server.url()).await.unwrap())).await;
}

/// The numbers of checkpoints by their ids go with the checkpoints.
#[tokio::test]
async fn a_thinning_leaves_no_id_of_what_is_gone_in_redis() {
    let server = stepgraph_live::Redis::start(Fsync::Never).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    for number in 2..=5 {
        let head = Some(Seq(number - 1));
        store.commit(&key, epoch, head, everything(number)).await.unwrap();
    }
    checkpoint::thin(&store, &key, Keep::last(2), chrono::DateTime::UNIX_EPOCH)
        .await
        .unwrap();
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (command, stored) in [("HLEN", "ids"), ("HLEN", "payloads"), ("ZCARD", "infos")] {
        let name = format!("stepgraph:{stored}:acme/t/");
        let count: Result<u64, _> = redis::cmd(command).arg(name).query_async(&mut connection).await;
        assert_eq!(count.unwrap(), 2, "{stored}");
    }
}

/// A commit that waits for a thinning sees the other tables as they were before, and must not believe them.
#[tokio::test]
async fn a_commit_that_has_waited_for_a_thinning_looks_for_its_parent_again() {
    let (url, store) = postgres().await;
    for (thread, gone, refused) in [("stays", 1, None), ("goes", 2, Some("checkpoint::no_checkpoint"))] {
        let key = key(thread);
        let epoch = begun(&*store, &key).await;
        for number in 2..=3 {
            let head = Some(Seq(number - 1));
            store.commit(&key, epoch, head, only(snapshot(number))).await.unwrap();
        }
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
        let thinning = format!(
            "BEGIN; UPDATE checkpoint_threads SET thinnings = thinnings + 1 WHERE thread = '{thread}'; \
             DELETE FROM checkpoints c USING checkpoint_threads t \
             WHERE t.thread = '{thread}' AND c.thread = t.number AND c.seq = {gone}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(thinning))
            .execute(&mut other)
            .await
            .unwrap();
        let fork = Commit {
            parent: Some(Seq(2)),
            ..only(snapshot(4))
        };
        let writer = tokio::spawn({
            let (store, key) = (store.clone(), key.clone());
            async move { store.commit(&key, epoch, Some(Seq(3)), fork).await }
        });
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                       WHERE NOT l.granted AND a.datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waiting)
            .fetch_one(&mut other)
            .await
            .unwrap()
            == 0
        {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
        let written = writer.await.unwrap();
        assert_eq!(written.as_ref().err().map(CheckpointError::code), refused, "{thread}");
    }
}

#[tokio::test]
async fn an_erased_tenant_leaves_no_row_in_any_table_of_postgres() {
    let (url, store) = postgres().await;
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let tables = "SELECT table_name::TEXT FROM information_schema.tables \
                  WHERE table_schema = 'public' AND table_name <> 'checkpoint_migrations' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
    assert_eq!(tables.len(), 7, "{tables:?}");
    let mut rows = async || {
        let mut rows = Vec::new();
        for table in &tables {
            let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            rows.push(
                sqlx::query_scalar::<_, i64>(count)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap(),
            );
        }
        rows
    };
    a_tenant_with_everything(&*store, "other").await;
    let others = rows().await;
    assert!(others.iter().all(|rows| *rows > 0), "{tables:?} {others:?}");
    let tenant = a_tenant_with_everything(&*store, "acme").await;
    store.erase(&tenant).await.unwrap();
    assert_eq!(rows().await, others, "{tables:?}");
}

#[tokio::test]
async fn an_erased_tenant_leaves_no_key_in_redis() {
    let server = stepgraph_live::Redis::start(Fsync::Never).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys = async || {
        let keys: Result<Vec<String>, _> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await;
        let mut keys = keys.unwrap();
        keys.sort();
        keys
    };
    a_tenant_with_everything(&store, "other").await;
    let others = keys().await;
    let tenant = a_tenant_with_everything(&store, "acme").await;
    assert!(keys().await.len() > others.len());
    store.erase(&tenant).await.unwrap();
    assert_eq!(keys().await, others);
    let messages = store.outbox("topic", 100).await.unwrap();
    assert!(!messages.is_empty() && messages.iter().all(|(key, _)| key.tenant != tenant));
    let unfinished = store.unfinished("graph", 100).await.unwrap();
    assert_eq!(unfinished.len(), 2, "the other's alone");
}
