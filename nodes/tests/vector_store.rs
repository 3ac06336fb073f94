//! What every vector store must do, run on the embedded one.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a check fails by panicking")]

mod support {
    pub(crate) mod vector_store;
}

use stepgraph_nodes::service::embedded::SqliteVectors;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    support::vector_store::check(&store).await;
}

#[tokio::test]
async fn what_was_stored_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.db");
    let store = SqliteVectors::open(&path).await.unwrap();
    support::vector_store::fill(&store).await;
    drop(store);
    let store = SqliteVectors::open(&path).await.unwrap();
    support::vector_store::is_filled(&store).await;
}
