//! On Qdrant's own engine, with the requests themselves: what each filter is for.

use stepgraph_live::Qdrant as Server;

use super::*;

fn tenant(id: &str) -> TenantId {
    TenantId::authenticated(id).unwrap()
}

fn mini() -> (ModelName, u32) {
    (ModelName::new("mini"), 2)
}

fn options(server: &Server, embedding: Option<(ModelName, u32)>) -> QdrantOptions {
    QdrantOptions {
        url: server.url().to_owned(),
        api_key: None,
        collection: format!("test-{}", Uuid::new_v4()),
        embedding,
    }
}

fn chunks(pairs: &[(&str, [f32; 2])]) -> Vec<Chunk> {
    let chunk = |(index, (text, dense)): (u32, &(&str, [f32; 2]))| Chunk {
        index,
        title: String::new(),
        text: (*text).to_owned(),
        dense: Some(dense.to_vec()),
    };
    (0..).zip(pairs).map(chunk).collect()
}

/// Two tenants, each with a document of the same name; theirs fits the question "lamp" as well as ours.
async fn two(options: QdrantOptions) -> (QdrantVectors, TenantId, TenantId) {
    let store = QdrantVectors::open(options).await.unwrap();
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let base = KnowledgeBase {
        language: "en".to_owned(),
        embedding: Some(mini()),
    };
    for (tenant, texts) in [
        (
            &ours,
            chunks(&[("our lamp is green", [1.0, 0.0]), ("our desk", [0.0, 1.0])]),
        ),
        (
            &theirs,
            chunks(&[("their lamp is secret", [1.0, 0.1]), ("their chair", [0.1, 1.0])]),
        ),
    ] {
        store.prepare(tenant, &base).await.unwrap();
        store.replace(tenant, &DocumentId::new("doc"), &texts).await.unwrap();
    }
    (store, ours, theirs)
}

mod live {
    use qdrant_client::qdrant::{Filter, QueryPoints, ScoredPoint, value::Kind};

    use super::*;

    fn owners(points: &[ScoredPoint]) -> Vec<String> {
        let owner = |point: &ScoredPoint| match &point.payload.get(payload::CLIENT).unwrap().kind {
            Some(Kind::StringValue(owner)) => owner.clone(),
            other => panic!("{other:?}"),
        };
        let mut owners: Vec<String> = points.iter().map(owner).collect();
        owners.sort();
        owners.dedup();
        owners
    }

    fn without_tenant(filter: &mut Filter) {
        let before = filter.must.len();
        let is_tenant =
            |condition: &qdrant_client::qdrant::Condition| format!("{condition:?}").contains(payload::CLIENT);
        filter.must.retain(|condition| !is_tenant(condition));
        assert_eq!(filter.must.len(), before - 1, "the filter names the tenant once");
    }

    async fn asked(store: &QdrantVectors, query: QueryPoints) -> Vec<ScoredPoint> {
        store.client.query(query).await.unwrap().result
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_filter_of_a_search_holds_back_the_other_tenants_chunks() {
        let server = Server::start().unwrap();
        let (store, ours, _) = two(options(&server, Some(mini()))).await;
        let words = || Some(sparse::of_question(["lamp"]));
        let search = |words, meaning| request::search(store.name(), &ours, words, meaning, 10).unwrap();

        let mut by_words = search(words(), None);
        assert_eq!(owners(&asked(&store, by_words.clone()).await), ["ours"]);
        without_tenant(by_words.filter.as_mut().unwrap());
        assert_eq!(
            owners(&asked(&store, by_words).await),
            ["ours", "theirs"],
            "it is the filter that holds back"
        );

        let both = search(words(), Some(vec![1.0, 0.0]));
        assert_eq!(both.prefetch.len(), 2);
        assert_eq!(owners(&asked(&store, both.clone()).await), ["ours"]);
        // The filter of the whole is one more wall behind those of the prefetches: with it gone, each of them must hold.
        let mut unwalled = both.clone();
        without_tenant(unwalled.filter.as_mut().unwrap());
        assert_eq!(owners(&asked(&store, unwalled.clone()).await), ["ours"]);
        for open in 0..2 {
            let mut leaking = unwalled.clone();
            without_tenant(leaking.prefetch[open].filter.as_mut().unwrap());
            assert_eq!(
                owners(&asked(&store, leaking).await),
                ["ours", "theirs"],
                "prefetch {open}"
            );
            let mut walled = both.clone();
            without_tenant(walled.prefetch[open].filter.as_mut().unwrap());
            assert_eq!(
                owners(&asked(&store, walled).await),
                ["ours"],
                "the filter of the whole, prefetch {open}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rarity_is_counted_inside_the_tenant_by_its_corpus_alone() {
        let server = Server::start().unwrap();
        let (store, ours, theirs) = two(options(&server, Some(mini()))).await;
        let rarity = request::rarity(store.name(), &ours, sparse::of_question(["lamp"]));
        let mut open = rarity.clone();
        without_tenant(
            open.params
                .as_mut()
                .unwrap()
                .idf
                .as_mut()
                .unwrap()
                .corpus
                .as_mut()
                .unwrap(),
        );
        let before = asked(&store, rarity.clone()).await[0].score;
        let leaking = asked(&store, open.clone()).await[0].score;

        let many = chunks(&[("lamp", [1.0, 0.0]); 20]);
        store.replace(&theirs, &DocumentId::new("lamps"), &many).await.unwrap();

        assert!((asked(&store, rarity).await[0].score - before).abs() < 1e-6);
        let after = asked(&store, open).await[0].score;
        assert!(
            (after - leaking).abs() > 0.1,
            "without the corpus a neighbour shows: {leaking} {after}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_filter_of_a_count_or_deletion_holds_back_the_other_tenants_chunks() {
        let server = Server::start().unwrap();
        let (store, ours, theirs) = two(options(&server, Some(mini()))).await;
        let document = DocumentId::new("doc");
        let counted = async |filter: Filter| {
            let count = store.client.count(request::count(store.name(), filter)).await.unwrap();
            count.result.unwrap().count
        };
        // Two chunks each; the points of the two knowledge bases have no tenant, and no filter of chunks meets them.
        for (filter, leaked) in [
            (request::of_tenant(&ours), 6),
            (request::of_document(&ours, &document), 4),
        ] {
            assert_eq!(counted(filter.clone()).await, 2);
            let mut open = filter;
            without_tenant(&mut open);
            assert_eq!(counted(open).await, leaked);
        }

        let stale = |open: bool| {
            let mut delete = request::delete_stale(store.name(), &ours, std::slice::from_ref(&document), &[]);
            let Some(qdrant_client::qdrant::points_selector::PointsSelectorOneOf::Filter(filter)) =
                delete.points.as_mut().unwrap().points_selector_one_of.as_mut()
            else {
                panic!("not by filter")
            };
            if open {
                without_tenant(filter);
            }
            delete
        };
        store.client.delete_points(stale(false)).await.unwrap();
        assert_eq!(
            (store.count(&ours).await.unwrap(), store.count(&theirs).await.unwrap()),
            (0, 2)
        );
        store.client.delete_points(stale(true)).await.unwrap();
        assert_eq!(
            store.count(&theirs).await.unwrap(),
            0,
            "without the tenant it deletes the other's"
        );
    }
}
