//! Keys of tenants in PostgreSQL, and threads on servers that are sealed anew.

use stepgraph_checkpoint::{Postgres, Redis, seal::PostgresKeys};
use stepgraph_live::Fsync;

#[path = "../contract/key_store.rs"]
mod key_store;
#[path = "../contract/sealed_anew.rs"]
mod sealed_anew;

#[tokio::test]
async fn keys_in_postgres_hold_to_the_contract() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    key_store::holds(&PostgresKeys::open(&url).await.unwrap()).await;
    key_store::holds_again(&PostgresKeys::open(&url).await.unwrap()).await;
}

#[tokio::test]
async fn threads_in_postgres_are_sealed_anew() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    sealed_anew::holds(async || Postgres::open(&url).await.unwrap()).await;
}

#[tokio::test]
async fn threads_in_redis_are_sealed_anew() {
    let server = stepgraph_live::Redis::start(Fsync::Never).unwrap();
    sealed_anew::holds(async || Redis::open(&server.url()).await.unwrap()).await;
}
