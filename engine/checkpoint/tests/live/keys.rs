//! Keys of tenants in PostgreSQL.

use stepgraph_checkpoint::seal::PostgresKeys;

#[path = "../contract/key_store.rs"]
mod key_store;

#[tokio::test]
async fn keys_in_postgres_hold_to_the_contract() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    key_store::holds(&PostgresKeys::open(&url).await.unwrap()).await;
    key_store::holds_again(&PostgresKeys::open(&url).await.unwrap()).await;
}
