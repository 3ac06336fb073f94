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

mod live {
    use std::time::Duration;

    use stepgraph::TenantId;
    use stepgraph_live::Qdrant;
    use stepgraph_nodes::service::{
        Chunk, DocumentId, Hit, KnowledgeBase, ModelName, SearchQuery, ServiceError, VectorStore,
        qdrant::{QdrantOptions, QdrantVectors},
    };

    use super::*;

    fn mini() -> (ModelName, u32) {
        (ModelName::new("mini"), 2)
    }

    fn options(server: &Qdrant) -> QdrantOptions {
        QdrantOptions {
            url: server.url().to_owned(),
            api_key: None,
            collection: format!("test-{}", uuid::Uuid::new_v4()),
            embedding: Some(mini()),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_qdrant_store_keeps_the_contract() {
        let server = Qdrant::start().unwrap();
        let store = QdrantVectors::open(options(&server)).await.unwrap();
        support::vector_store::check(&store).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_qdrant_that_is_killed_is_an_error_that_may_pass_and_is_found_again_with_all_it_had() {
        let mut server = Qdrant::start_own().unwrap();
        let options = options(&server);
        let store = QdrantVectors::open(options.clone()).await.unwrap();
        support::vector_store::fill(&store).await;

        server.kill().unwrap();
        let away = store.ping().await.unwrap_err();
        assert!(away.is_retryable() && away.to_string().contains("QDRANT_URL"), "{away}");
        let tenant = TenantId::authenticated("kept").unwrap();
        let query = SearchQuery {
            text: "warranty".to_owned(),
            dense: None,
            limit: 1,
        };
        assert!(store.search(&tenant, &query).await.unwrap_err().is_retryable());
        let early = QdrantVectors::open(options).await.unwrap();
        assert!(
            early.ping().await.unwrap_err().is_retryable(),
            "opened while it is away"
        );

        server.start_again().unwrap();
        for store in [&store, &early] {
            let back = async { while store.ping().await.is_err() {} };
            tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
            support::vector_store::is_filled(store).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_collection_of_another_embedding_model_is_refused_with_the_remedy() {
        let server = Qdrant::start().unwrap();
        let options = options(&server);
        QdrantVectors::open(options.clone()).await.unwrap();
        QdrantVectors::open(options.clone()).await.unwrap();
        for other in [
            None,
            Some((ModelName::new("mini"), 3)),
            Some((ModelName::new("other"), 2)),
        ] {
            let other = QdrantOptions {
                embedding: other,
                ..options.clone()
            };
            let refused = QdrantVectors::open(other).await.unwrap_err();
            assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");
            assert!(refused.to_string().contains("anew"), "{refused}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_collection_of_another_program_is_left_alone() {
        let server = Qdrant::start().unwrap();
        let options = options(&server);
        let client = qdrant_client::Qdrant::from_url(server.url())
            .skip_compatibility_check()
            .build()
            .unwrap();
        let foreign = qdrant_client::qdrant::CreateCollection {
            collection_name: options.collection.clone(),
            sparse_vectors_config: Some(qdrant_client::qdrant::SparseVectorConfig {
                map: [("bm25".to_owned(), qdrant_client::qdrant::SparseVectorParams::default())].into(),
            }),
            ..Default::default()
        };
        client.create_collection(foreign).await.unwrap();
        let refused = QdrantVectors::open(options).await.unwrap_err();
        assert!(refused.to_string().contains("QDRANT_COLLECTION"), "{refused}");
    }

    /// Texts and directions that disagree now and then, so that both lists count.
    fn library() -> Vec<(DocumentId, Vec<Chunk>)> {
        let subjects = ["kettle", "lamp", "pump", "chair", "clock"];
        let facts = [
            "warranty lasts two years",
            "repair is free",
            "colour is green",
            "weight is low",
            "price is high",
        ];
        let document = |(number, subject): (u8, &&str)| {
            let chunk = |(index, fact): (u8, &&str)| {
                let angle = f32::from(number) * 0.25 + f32::from(index) * 0.03;
                Chunk {
                    index: u32::from(index),
                    title: format!("{subject} manual"),
                    text: format!("The {subject}: its {fact}. {}", "Read on. ".repeat(usize::from(index))),
                    dense: Some(vec![angle.cos(), angle.sin()]),
                }
            };
            (DocumentId::new(*subject), (0..).zip(&facts).map(chunk).collect())
        };
        (0..).zip(&subjects).map(document).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_ranks_and_covers_as_the_embedded_store_does() {
        let (server, folder) = (Qdrant::start().unwrap(), tempfile::tempdir().unwrap());
        let qdrant = QdrantVectors::open(options(&server)).await.unwrap();
        let embedded = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
        let tenant = TenantId::authenticated("library").unwrap();
        let base = KnowledgeBase {
            language: "en".to_owned(),
            embedding: Some(mini()),
        };
        let stores: [&dyn VectorStore; 2] = [&qdrant, &embedded];
        for store in stores {
            store.prepare(&tenant, &base).await.unwrap();
            store.replace_many(&tenant, &library()).await.unwrap();
        }
        let questions = [
            ("warranty of the kettle", 0.0_f32),
            ("what colour has the lamp?", 0.3),
            ("is the repair of a pump free", 0.55),
            ("how heavy is the chair, and its price", 0.8),
            ("does the zeppelin have a clock", 1.1),
        ];
        for (text, angle) in questions {
            for dense in [None, Some(vec![angle.cos(), angle.sin()])] {
                let hybrid = dense.is_some();
                let query = SearchQuery {
                    text: text.to_owned(),
                    dense,
                    limit: 6,
                };
                let [far, near] = [
                    qdrant.search(&tenant, &query).await.unwrap(),
                    embedded.search(&tenant, &query).await.unwrap(),
                ];
                let place = |hit: &Hit| (hit.document_id.clone(), hit.chunk_index);
                // Fused ranks tie now and then, and either store may put either of two equals first.
                let ahead = if hybrid { 2 } else { 1 };
                let led = near.iter().take(ahead).any(|hit| place(hit) == place(&far[0]));
                assert!(led, "{text}, hybrid {hybrid}: {far:#?} {near:#?}");
                let shared = far
                    .iter()
                    .filter(|hit| near.iter().any(|other| place(other) == place(hit)))
                    .count();
                assert!(shared >= 5, "{text}, hybrid {hybrid}: {far:#?} {near:#?}");
                for hit in &far {
                    let other = near.iter().find(|other| place(other) == place(hit));
                    let off = other.map_or(0.0, |other| (other.coverage - hit.coverage).abs());
                    assert!(off < 0.01, "coverage of {:?} for {text}: {off}", place(hit));
                }
            }
        }
    }
}
