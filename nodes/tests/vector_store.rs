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
    use std::{collections::BTreeSet, time::Duration};

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
    async fn every_call_is_part_of_the_trace_it_is_made_for_and_of_no_other() {
        use stepgraph_nodes::trace;

        let server = Qdrant::start_own().unwrap();
        let store = QdrantVectors::open(options(&server)).await.unwrap();
        let opening = server.calls().unwrap().len();
        let query = SearchQuery {
            text: "warranty lamp".to_owned(),
            dense: Some(vec![1.0, 0.0]),
            limit: 3,
        };
        let text = |digit: char| format!("00-{}-b7ad6b7169203331-01", digit.to_string().repeat(32));
        let work = async |digit: char| {
            let tenant = TenantId::authenticated(format!("of-{digit}")).unwrap();
            let base = KnowledgeBase {
                language: "en".to_owned(),
                embedding: Some(mini()),
            };
            store.prepare(&tenant, &base).await.unwrap();
            let chunk = Chunk {
                index: 0,
                title: String::new(),
                text: "The warranty of the lamp.".to_owned(),
                dense: Some(vec![1.0, 0.0]),
            };
            store.replace(&tenant, &DocumentId::new("d"), &[chunk]).await.unwrap();
            store.search(&tenant, &query).await.unwrap();
            store.delete(&tenant, &DocumentId::new("d")).await.unwrap();
            store.erase(&tenant).await.unwrap();
        };

        let traced = |digit: char| trace::within(text(digit).parse().ok(), work(digit));
        tokio::join!(traced('a'), traced('b'));
        store.ping().await.unwrap();

        let calls = server.calls().unwrap();
        let (last, calls) = calls[opening..].split_last().unwrap();
        assert_eq!((last.name.as_str(), &last.trace), ("HealthCheck", &None));
        for (digit, name) in [('a', "of-a"), ('b', "of-b")] {
            let of_trace = calls.iter().filter(|call| call.trace == Some(text(digit)));
            let (mut named, mut called) = (BTreeSet::new(), BTreeSet::new());
            for call in of_trace {
                called.insert(call.name.as_str());
                named.extend(&call.tenants);
            }
            for call in ["Upsert", "Get", "QueryBatch", "Count", "Delete"] {
                assert!(called.contains(call), "{call}: {calls:#?}");
            }
            assert!(named.into_iter().map(String::as_str).eq([name]), "{calls:#?}");
        }
        assert!(calls.iter().all(|call| call.trace.is_some()), "{calls:#?}");
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

mod reindexing {
    use std::sync::Arc;

    use async_trait::async_trait;
    use stepgraph::TenantId;
    use stepgraph_nodes::service::{
        Chunk, DocumentId, Embedder, KnowledgeBase, ModelName, Purpose, SearchQuery, ServiceError, VectorStore,
        embedded::{Reindex, Reindexed, SqliteVectors},
    };

    /// Looks for letters: a text's vector has 1 where it holds the letter, and a little everywhere.
    struct Letters {
        model: ModelName,
        letters: &'static str,
    }

    impl Letters {
        fn new(letters: &'static str) -> Arc<Self> {
            let model = ModelName::new(letters);
            Arc::new(Self { model, letters })
        }

        fn of(&self, text: &str) -> Vec<f32> {
            let part = |letter| if text.contains(letter) { 1.0 } else { 0.01 };
            self.letters.chars().map(part).collect()
        }
    }

    #[async_trait]
    impl Embedder for Letters {
        fn model(&self) -> &ModelName {
            &self.model
        }

        fn dimension(&self) -> u32 {
            u32::try_from(self.letters.len()).unwrap()
        }

        async fn embed(&self, _: &TenantId, _: Purpose, texts: &[String]) -> Result<Vec<Vec<f32>>, ServiceError> {
            Ok(texts.iter().map(|text| self.of(text)).collect())
        }
    }

    fn base(embedder: &Letters) -> KnowledgeBase {
        KnowledgeBase {
            language: "und".to_owned(),
            embedding: Some((embedder.model.clone(), embedder.dimension())),
        }
    }

    async fn write(store: &SqliteVectors, tenant: &TenantId, document: &str, text: &str, by: &Letters) {
        let chunk = Chunk {
            index: 0,
            title: String::new(),
            text: text.to_owned(),
            dense: Some(by.of(text)),
        };
        store
            .replace(tenant, &DocumentId::new(document), &[chunk])
            .await
            .unwrap();
    }

    async fn first(store: &SqliteVectors, tenant: &TenantId, vector: Vec<f32>) -> String {
        let query = SearchQuery {
            text: String::new(),
            dense: Some(vector),
            limit: 1,
        };
        store.search(tenant, &query).await.unwrap().remove(0).text
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::authenticated(name).unwrap()
    }

    #[tokio::test]
    async fn chunks_that_change_meanwhile_are_embedded_too_and_nothing_of_an_erased_tenant_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
        let (old, new) = (Letters::new("ab"), Letters::new("xyz"));
        let (kept, erased) = (tenant("kept"), tenant("erased"));
        for tenant in [&kept, &erased] {
            store.prepare(tenant, &base(&old)).await.unwrap();
            write(&store, tenant, "one", "a x", &old).await;
            write(&store, tenant, "two", "b y", &old).await;
        }
        let target = base(&new).embedding;
        let refused = store.check(target.as_ref()).await.unwrap_err();
        assert!(refused.to_string().contains("stepgraph reindex"), "{refused}");

        let mut work = Reindex::begin(&store, Some(new.clone())).await.unwrap().unwrap();
        assert_eq!(work.step().await.unwrap(), 4);
        write(&store, &kept, "two", "b z", &old).await;
        store.erase(&erased).await.unwrap();
        assert_eq!(work.progress().await.unwrap(), Reindexed { chunks: 2, ready: 1 });
        assert!(!work.finish().await.unwrap(), "a chunk has no new vector yet");
        assert_eq!(first(&store, &kept, old.of("b")).await, "b z", "the old vectors answer");
        // The next one to have the row of the erased tenant must not have its vectors.
        let next = tenant("next");
        store.prepare(&next, &base(&old)).await.unwrap();
        write(&store, &next, "one", "a y", &old).await;

        assert_eq!(work.step().await.unwrap(), 0, "the pass ends");
        let mut resumed = Reindex::begin(&store, Some(new.clone())).await.unwrap().unwrap();
        assert_eq!(resumed.step().await.unwrap(), 2, "what was ready stays ready");
        assert!(resumed.finish().await.unwrap());

        store.check(target.as_ref()).await.unwrap();
        assert_eq!(first(&store, &kept, new.of("z")).await, "b z");
        assert_eq!(first(&store, &kept, new.of("x")).await, "a x");
        assert_eq!(first(&store, &next, new.of("y")).await, "a y");
        write(&store, &next, "two", "x", &new).await;
        assert_eq!(first(&store, &next, new.of("x")).await, "x");
        assert!(Reindex::begin(&store, Some(new)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn of_two_that_make_vectors_of_different_models_the_later_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
        let (old, tenant) = (Letters::new("ab"), tenant("acme"));
        store.prepare(&tenant, &base(&old)).await.unwrap();
        write(&store, &tenant, "one", "a x", &old).await;
        let mut earlier = Reindex::begin(&store, Some(Letters::new("xyz")))
            .await
            .unwrap()
            .unwrap();
        earlier.step().await.unwrap();

        let mut later = Reindex::begin(&store, Some(Letters::new("xy"))).await.unwrap().unwrap();
        assert_eq!(later.progress().await.unwrap().ready, 0);
        for refused in [earlier.step().await.map(drop), earlier.finish().await.map(drop)] {
            assert!(
                matches!(refused, Ok(()) | Err(ServiceError::Refused { .. })),
                "{refused:?}"
            );
        }
        assert!(earlier.finish().await.is_err());

        later.step().await.unwrap();
        assert!(later.finish().await.unwrap());
        store.check(base(&Letters::new("xy")).embedding.as_ref()).await.unwrap();
    }
}
