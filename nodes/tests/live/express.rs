//! A private database with the tables of the Express service in it.

use sqlx::{Connection as _, PgConnection};
use stepgraph_nodes::service::{
    Records, Secret,
    postgres::{ClientWrites, PostgresRecords, PostgresRecordsOptions},
};

/// The tables of a current deployment.
pub(crate) const SCHEMA: &str = include_str!("../support/express_schema.sql");

/// A database with these tables; its address.
pub(crate) async fn database(schema: &'static str) -> String {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    execute(&url, schema).await;
    url
}

pub(crate) async fn raw(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

pub(crate) async fn execute(url: &str, statements: &'static str) {
    sqlx::raw_sql(statements).execute(&mut raw(url).await).await.unwrap();
}

pub(crate) fn options(client_writes: ClientWrites) -> PostgresRecordsOptions {
    let mut options = PostgresRecordsOptions::default();
    options.client_writes = client_writes;
    options.connections_max = 8;
    options
}

pub(crate) async fn store(url: &str, client_writes: ClientWrites) -> PostgresRecords {
    PostgresRecords::open(&Secret::new(url), options(client_writes))
        .await
        .unwrap()
}

/// Records over a database of their own, which may make clients.
pub(crate) async fn records(schema: &'static str) -> Records {
    Records::of(store(&database(schema).await, ClientWrites::Allowed).await)
}
