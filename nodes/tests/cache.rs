//! What every cache must do, on the embedded one and on a Redis, and what is kept in them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a check fails by panicking")]

mod support {
    pub(crate) mod cache;
}

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use stepgraph::{TenantId, async_trait};
use stepgraph_nodes::service::{
    Cache, CacheState, CachedEmbedder, CachedVectors, Chunk, DocumentId, Embedder, KnowledgeBase, ModelName, Purpose,
    SearchQuery, ServiceError, VectorStore,
    embedded::{MokaCache, SqliteVectors},
};
use support::cache::{check, tenant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_in_memory_keeps_the_contract() {
    check(Arc::new(MokaCache::new()), CacheState::Embedded).await;
}

/// Counts what it is asked, and gives a vector made of the text's length.
struct Counting {
    model: ModelName,
    asked: Mutex<Vec<String>>,
    less: AtomicUsize,
}

impl Counting {
    fn new(model: &str) -> Arc<Self> {
        Arc::new(Self {
            model: ModelName::new(model),
            asked: Mutex::default(),
            less: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Embedder for Counting {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn dimension(&self) -> u32 {
        2
    }

    async fn embed(&self, _: &TenantId, _: Purpose, texts: &[String]) -> Result<Vec<Vec<f32>>, ServiceError> {
        self.asked.lock().unwrap().extend_from_slice(texts);
        let made = texts.len() - self.less.load(Ordering::Relaxed);
        Ok(texts[..made]
            .iter()
            .map(|text| vec![f32::from(u8::try_from(text.len()).unwrap()), 0.1])
            .collect())
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_question_is_embedded_once_for_each_tenant_and_model() {
    let cache: Arc<dyn Cache> = Arc::new(MokaCache::new());
    let (mini, other) = (Counting::new("mini"), Counting::new("other"));
    let cached = CachedEmbedder::new(mini.clone(), Arc::clone(&cache));
    let (a, b) = (tenant("a"), tenant("b"));

    let first = cached
        .embed(&a, Purpose::Query, &texts(&["one", "three"]))
        .await
        .unwrap();
    assert_eq!(mini.asked(), ["one", "three"]);
    let mixed = cached
        .embed(&a, Purpose::Query, &texts(&["three", "fifteen", "one"]))
        .await
        .unwrap();
    assert_eq!(mini.asked(), ["fifteen"], "only what is not kept");
    assert_eq!(
        mixed,
        [first[1].clone(), vec![7.0, 0.1], first[0].clone()],
        "in order, to the last bit"
    );

    cached.embed(&b, Purpose::Query, &texts(&["one"])).await.unwrap();
    assert_eq!(mini.asked(), ["one"], "no tenant learns what another has asked");
    cached.embed(&a, Purpose::Document, &texts(&["one"])).await.unwrap();
    assert_eq!(mini.asked(), ["one"], "a document is embedded for its own purpose");
    let second = CachedEmbedder::new(other.clone(), cache);
    second.embed(&a, Purpose::Query, &texts(&["one"])).await.unwrap();
    assert_eq!(other.asked(), ["one"], "another model has other vectors");
}

#[tokio::test]
async fn a_model_that_gives_too_few_vectors_is_found_out() {
    let model = Counting::new("short");
    model.less.store(1, Ordering::Relaxed);
    let cached = CachedEmbedder::new(model, Arc::new(MokaCache::new()));
    let error = cached
        .embed(&tenant("a"), Purpose::Query, &texts(&["one", "two"]))
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Corrupt { .. }), "{error}");
}

async fn filled(folder: &tempfile::TempDir, tenants: &[&TenantId]) -> Arc<SqliteVectors> {
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    let base = KnowledgeBase {
        language: "en".to_owned(),
        embedding: None,
    };
    for tenant in tenants {
        store.prepare(tenant, &base).await.unwrap();
        store
            .replace(tenant, &DocumentId::new("lamp"), &chunk("The lamp is green."))
            .await
            .unwrap();
    }
    Arc::new(store)
}

fn chunk(text: &str) -> Vec<Chunk> {
    vec![Chunk {
        index: 0,
        title: String::new(),
        text: text.to_owned(),
        dense: None,
    }]
}

async fn found(store: &dyn VectorStore, tenant: &TenantId, text: &str, limit: u32) -> usize {
    let query = SearchQuery {
        text: text.to_owned(),
        dense: None,
        limit,
    };
    store.search(tenant, &query).await.unwrap().len()
}

/// Changes the store behind the caches' backs: what is found after that was kept, and what is not was forgotten.
async fn forgets_at_each_change(caches: [Arc<dyn Cache>; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (tenant("cached-a"), tenant("cached-b"));
    let store = filled(&folder, &[&a, &b]).await;
    let [one, other] = caches.map(|cache| CachedVectors::new(Arc::clone(&store) as _, cache));
    for tenant in [&a, &b] {
        assert_eq!(found(&one, tenant, "lamp", 5).await, 1);
        store.delete(tenant, &DocumentId::new("lamp")).await.unwrap();
    }
    assert_eq!(found(&one, &a, "lamp", 5).await, 1, "kept");
    assert_eq!(found(&other, &a, "lamp", 5).await, 1, "and by all who share the cache");
    assert_eq!(found(&one, &a, "lamp", 4).await, 0, "another limit is another question");

    assert_eq!(other.delete(&a, &DocumentId::new("another")).await.unwrap(), 0);
    assert_eq!(
        found(&one, &a, "lamp", 5).await,
        0,
        "a change in one process is one in all"
    );
    assert_eq!(found(&one, &b, "lamp", 5).await, 1, "another tenant has not changed");

    other
        .replace(&b, &DocumentId::new("desk"), &chunk("A desk."))
        .await
        .unwrap();
    assert_eq!(found(&one, &b, "lamp", 5).await, 0);
    assert_eq!(found(&one, &b, "desk", 5).await, 1);
    other
        .replace_many(&b, &[(DocumentId::new("desk"), chunk("A chair."))])
        .await
        .unwrap();
    assert_eq!(found(&one, &b, "desk", 5).await, 0);
}

#[tokio::test]
async fn what_was_found_is_kept_until_the_tenants_documents_change() {
    let cache: Arc<dyn Cache> = Arc::new(MokaCache::new());
    forgets_at_each_change([Arc::clone(&cache), cache]).await;
}

mod live {
    use std::time::Duration;

    use stepgraph_live::{Fsync, Redis};
    use stepgraph_nodes::service::{FallbackCache, Secret, redis::RedisCache};

    use super::{support::cache::LONG, *};

    fn connected(server: &Redis) -> Arc<dyn Cache> {
        Arc::new(RedisCache::new(&Secret::new(server.url())).unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_cache_on_redis_keeps_the_contract_with_and_without_a_fallback() {
        for wrapped in [false, true] {
            let server = Redis::start(Fsync::Never).unwrap();
            let cache = connected(&server);
            let cache = if wrapped {
                Arc::new(FallbackCache::new(cache)) as _
            } else {
                cache
            };
            check(cache, CacheState::Answering).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_found_is_forgotten_in_all_processes_that_share_a_redis() {
        let server = Redis::start(Fsync::Never).unwrap();
        let process = || Arc::new(FallbackCache::new(connected(&server))) as Arc<dyn Cache>;
        forgets_at_each_change([process(), process()]).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn counts_of_several_processes_at_once_are_exact() {
        let server = Redis::start(Fsync::Never).unwrap();
        let processes = [connected(&server), connected(&server)];
        let tasks: tokio::task::JoinSet<_> = (0..64)
            .map(|number| {
                let cache = Arc::clone(&processes[number % 2]);
                async move {
                    cache
                        .count(&tenant("a"), "rate_limit:1", LONG, Some(50))
                        .await
                        .unwrap()
                        .accepted
                }
            })
            .collect();
        assert_eq!(
            tasks.join_all().await.into_iter().filter(|accepted| *accepted).count(),
            50
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_counter_left_without_its_end_gets_one() {
        let server = Redis::start(Fsync::Never).unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let mut plain = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("SET")
            .arg("rate_limit:a:1")
            .arg(7)
            .query_async::<()>(&mut plain)
            .await
            .unwrap();
        let counted = connected(&server)
            .count(&tenant("a"), "rate_limit:1", LONG, None)
            .await
            .unwrap();
        assert_eq!(counted.count, 8);
        let left: i64 = redis::cmd("PTTL")
            .arg("rate_limit:a:1")
            .query_async(&mut plain)
            .await
            .unwrap();
        assert!(left > 0, "{left}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_redis_that_is_killed_is_done_without_and_used_again_when_it_is_back() {
        let mut server = Redis::start(Fsync::Always).unwrap();
        let cache = FallbackCache::new(connected(&server));
        let (a, folder) = (tenant("a"), tempfile::tempdir().unwrap());
        let store = filled(&folder, &[&a]).await;
        let vectors = CachedVectors::new(Arc::clone(&store) as _, Arc::new(cache.clone()));
        cache.put(&a, "key", b"far".to_vec(), LONG).await.unwrap();
        assert_eq!(cache.increment(&a, "count", LONG).await.unwrap(), 1);
        assert_eq!(found(&vectors, &a, "lamp", 5).await, 1);

        server.kill().unwrap();
        assert_eq!(cache.get(&a, "key").await.unwrap(), None, "nothing is made up");
        assert_eq!(
            cache.increment(&a, "count", LONG).await.unwrap(),
            1,
            "counted in this process"
        );
        assert_eq!(cache.increment(&a, "count", LONG).await.unwrap(), 2);
        cache.put(&a, "key", b"near".to_vec(), LONG).await.unwrap();
        assert_eq!(cache.get(&a, "key").await.unwrap(), Some(b"near".to_vec()));
        assert_eq!(cache.state().await, CacheState::Away);
        assert_eq!(found(&vectors, &a, "lamp", 5).await, 1);
        assert_eq!(vectors.delete(&a, &DocumentId::new("lamp")).await.unwrap(), 1);
        assert_eq!(
            found(&vectors, &a, "lamp", 5).await,
            0,
            "a deleted document is gone, Redis or not"
        );

        server.start_again().unwrap();
        let back = async {
            while cache.state().await == CacheState::Away {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
        assert_eq!(
            cache.get(&a, "key").await.unwrap(),
            Some(b"far".to_vec()),
            "the shared value holds again"
        );
        assert_eq!(
            cache.increment(&a, "count", LONG).await.unwrap(),
            2,
            "and the shared count"
        );
        assert_eq!(
            found(&vectors, &a, "lamp", 5).await,
            0,
            "what Redis kept from before the deletion is not found"
        );
    }
}
