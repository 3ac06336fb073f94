//! The stores that need a server hold to every fact of the suite.

use std::sync::atomic::{AtomicU32, Ordering};

use stepgraph_checkpoint::{
    Durability, Postgres, PostgresOptions, Redis, RedisOptions, Sealed, conformance,
    seal::{KeyId, MasterKeys},
};

#[tokio::test]
async fn postgres_holds_to_every_fact() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let count = AtomicU32::new(0);
    let make = async || {
        // What waits for the disk and what does not differ only after a power loss, which no fact can ask for.
        let options = PostgresOptions::default()
            .durability(Durability::Normal)
            .schema(format!("fact{}", count.fetch_add(1, Ordering::Relaxed)));
        Postgres::open_with(&url, options).await.unwrap()
    };
    let report = conformance::check(make).await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn redis_holds_to_every_fact() {
    let server = stepgraph_live::Redis::start(stepgraph_live::Fsync::Never).unwrap();
    let (url, count) = (server.url(), AtomicU32::new(0));
    let make = async || {
        let prefix = format!("fact{}:", count.fetch_add(1, Ordering::Relaxed));
        let options = RedisOptions::default().prefix(prefix);
        Redis::open_with(&url, &options).await.unwrap()
    };
    let report = conformance::check(make).await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn what_postgres_keeps_it_keeps_over_reopening() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let report = conformance::check_kept(async |name: &str| {
        let options = PostgresOptions::default().durability(Durability::Normal).schema(name);
        Postgres::open_with(&url, options).await.unwrap()
    })
    .await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn what_redis_keeps_it_keeps_over_reopening() {
    let server = stepgraph_live::Redis::start(stepgraph_live::Fsync::Never).unwrap();
    let url = server.url();
    let report = conformance::check_kept(async |name: &str| {
        let options = RedisOptions::default().prefix(format!("{name}:"));
        Redis::open_with(&url, &options).await.unwrap()
    })
    .await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

fn keys() -> MasterKeys {
    MasterKeys::new(KeyId(1), &[7; 32])
}

#[tokio::test]
async fn sealed_postgres_holds_to_every_fact() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let count = AtomicU32::new(0);
    let make = async || {
        let options = PostgresOptions::default()
            .durability(Durability::Normal)
            .schema(format!("sealed{}", count.fetch_add(1, Ordering::Relaxed)));
        Sealed::new(Postgres::open_with(&url, options).await.unwrap(), keys())
    };
    let report = conformance::check(make).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn sealed_redis_holds_to_every_fact() {
    let server = stepgraph_live::Redis::start(stepgraph_live::Fsync::Never).unwrap();
    let (url, count) = (server.url(), AtomicU32::new(0));
    let make = async || {
        let prefix = format!("sealed{}:", count.fetch_add(1, Ordering::Relaxed));
        let options = RedisOptions::default().prefix(prefix);
        Sealed::new(Redis::open_with(&url, &options).await.unwrap(), keys())
    };
    let report = conformance::check(make).await;
    assert!(report.passed(), "{report}");
}
