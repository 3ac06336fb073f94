//! The node cache: a hit joins its step like a run, and nobody is given what is another's.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

#[path = "parts/cache_hits.rs"]
mod hits;
mod support {
    pub(crate) mod threads;
}

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, CacheError, CacheKey, Clock, Command, Context, END, Effect, EventKind, FromState, Graph, Memory,
    MemoryCache, NodeCache, NodeError, Outcome, Route, RunEvent, START, State, TenantId, ThreadKey, async_trait, to,
};
use support::threads::{thread, thread_of};
use uuid::Uuid;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(input)]
    question: String,
    #[state(per_run, reducer = Append)]
    log: Vec<String>,
}

impl FromState<Work> for WorkInput {
    fn from_state(work: &Arc<Work>) -> Self {
        Self {
            question: work.question.clone(),
        }
    }
}

impl From<Arc<Work>> for WorkUpdate {
    fn from(inner: Arc<Work>) -> Self {
        Work::update().log(inner.log.clone())
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

#[derive(Route, Clone, Copy, Debug, PartialEq)]
enum Way {
    Short,
    Long,
}

const HOUR: Duration = Duration::from_hours(1);

fn ask(question: &str) -> WorkInput {
    WorkInput::new(question)
}

/// How often nodes have run.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A node that says how often it has run, cached by the question.
fn counting(name: &'static str, runs: &Runs) -> Graph<Work> {
    let runs = runs.clone();
    let mut g = Graph::<Work>::builder(name);
    let node = g.node("node", move |_: Arc<Work>| {
        let run = runs.up();
        async move { Ok(Work::update().log([format!("run {run}")])) }
    });
    g.cache(node, HOUR, |work| work.question.clone());
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

async fn log(graph: &Graph<Work>, thread: &ThreadKey, question: &str) -> Vec<String> {
    graph.run(thread, ask(question)).await.unwrap().done().unwrap().log
}

/// A router, workers that emit, and a branch behind them, all cached.
fn routed(runs: &Runs) -> Graph<Work> {
    let (first, second) = (runs.clone(), runs.clone());
    let mut g = Graph::<Work>::builder("routed");
    let choose = g.router("choose", move |work: Arc<Work>| {
        first.up();
        let goto = if work.question.len() < 5 { Way::Short } else { Way::Long };
        async move {
            Ok(Command {
                update: Work::update().log([format!("{goto:?}")]),
                goto,
            })
        }
    });
    let words = g.node("words", |_: Arc<Work>| async { Ok(()) });
    let each = g.worker("each", move |word: String| {
        second.up();
        async move { Ok(Work::update().log([word.to_uppercase()])) }
    });
    g.edge(START, choose);
    g.routes(choose, |way| match way {
        Way::Short => to(END),
        Way::Long => to(words),
    });
    g.fan_out(words, each, |work: &Work| {
        work.question.split(' ').map(str::to_owned).collect::<Vec<_>>()
    });
    g.edge(each, END);
    g.cache(choose, HOUR, |work| work.question.clone());
    g.cache(each, HOUR, Clone::clone);
    g.build().unwrap()
}

/// What a run tells, each line of an update with whether it came from the cache.
async fn told(graph: &Graph<Work>, question: &str) -> (Vec<String>, usize, Work) {
    let (mut lines, mut hits, mut last) = (Vec::new(), 0, None);
    let thread = ThreadKey::new(TenantId::authenticated("acme").unwrap(), stepgraph::ThreadId::random());
    let mut stream = graph.run(&thread, ask(question)).stream();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            RunEvent::Event(event) => {
                if let EventKind::Update {
                    task, cached, update, ..
                } = &event.kind
                {
                    hits += usize::from(*cached);
                    lines.push(format!("{task} {}", serde_json::to_string(update).unwrap()));
                } else {
                    lines.push(format!("{event:?}"));
                }
            }
            RunEvent::Ended(outcome) => last = outcome.done(),
            _ => panic!("an unknown event"),
        }
    }
    (lines, hits, last.unwrap())
}

#[tokio::test]
async fn a_hit_joins_its_step_like_a_run_and_says_that_it_is_one() {
    for kept in [false, true] {
        let runs = Runs::default();
        let mut graph = routed(&runs);
        if kept {
            graph = graph.checkpointer(Memory::new());
        }
        let first = told(&graph, "one two three").await;
        assert_eq!((first.1, runs.get()), (0, 4));
        let second = told(&graph, "one two three").await;
        assert_eq!((second.1, runs.get()), (4, 4), "nothing ran again");
        assert_eq!((&first.0, &first.2), (&second.0, &second.2));
        assert_eq!(second.2.log, ["Long", "ONE", "TWO", "THREE"]);
        // Some of the workers are hits, some run.
        let third = told(&graph, "two four").await;
        assert_eq!(
            (third.1, runs.get(), third.2.log.join(" ")),
            (1, 6, "Long TWO FOUR".to_owned())
        );
    }
}

#[tokio::test]
async fn another_tenant_another_graph_and_another_version_never_find_an_entry() {
    let (runs, cache) = (Runs::default(), Arc::new(MemoryCache::default()));
    let shared = Shared(Arc::clone(&cache));
    let graph = counting("work", &runs).node_cache(shared.clone());
    assert_eq!(log(&graph, &thread("t"), "why").await, ["run 1"]);
    assert_eq!(
        log(&graph, &thread("u"), "why").await,
        ["run 1"],
        "another thread of the tenant does"
    );
    assert_eq!(log(&graph, &thread_of("other", "t"), "why").await, ["run 2"]);
    let renamed = counting("renamed", &runs).node_cache(shared.clone());
    assert_eq!(log(&renamed, &thread("t"), "why").await, ["run 3"]);
    let mut g = Graph::<Work>::builder("work");
    let count = runs.clone();
    let node = g.node("node", move |_: Arc<Work>| {
        let run = count.up();
        async move { Ok(Work::update().log([format!("run {run}")])) }
    });
    let more = g.node("more", |_: Arc<Work>| async { Ok(()) });
    g.cache(node, HOUR, |work| work.question.clone());
    g.edge(START, node).edge(node, more).edge(more, END);
    let changed = g.build().unwrap().node_cache(shared);
    assert_eq!(log(&changed, &thread("t"), "why").await, ["run 4"]);
    assert_eq!(cache.len(), 4);
}

/// One cache for several graphs.
#[derive(Clone)]
struct Shared(Arc<MemoryCache>);

#[async_trait]
impl NodeCache for Shared {
    async fn get(&self, key: &CacheKey) -> Result<Option<Arc<[u8]>>, CacheError> {
        self.0.get(key).await
    }

    async fn put(&self, key: &CacheKey, bytes: Arc<[u8]>, ttl: Duration) -> Result<(), CacheError> {
        self.0.put(key, bytes, ttl).await
    }

    async fn clear(&self, graph: &str, node: &str) -> Result<(), CacheError> {
        self.0.clear(graph, node).await
    }
}

#[tokio::test]
async fn errors_are_not_kept() {
    let runs = Runs::default();
    let count = runs.clone();
    let mut g = Graph::<Work>::builder("work");
    let node = g.node("node", move |_: Arc<Work>| {
        let run = count.up();
        async move {
            if run == 1 {
                return Err(NodeError::terminal("no"));
            }
            Ok(Work::update().log([format!("run {run}")]))
        }
    });
    g.cache(node, HOUR, |_| ()).edge(START, node).edge(node, END);
    let graph = g.build().unwrap();
    graph.run(&thread("t"), ask("why")).await.unwrap_err();
    assert_eq!(log(&graph, &thread("u"), "why").await, ["run 2"]);
    assert_eq!(log(&graph, &thread("v"), "why").await, ["run 2"]);
}

#[tokio::test]
async fn questions_and_what_follows_from_an_answer_are_not_kept() {
    let mut g = Graph::<Work>::builder("work");
    let node = g.node("node", |_: Arc<Work>, ctx: Context<()>| async move {
        Ok(Work::update().log([format!("sure: {}", ctx.ask(Sure)?)]))
    });
    g.cache(node, HOUR, |_| ()).edge(START, node).edge(node, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    for (name, sure) in [("t", true), ("u", false)] {
        let asked = graph.run(&thread(name), ask("why")).await.unwrap();
        assert!(matches!(asked, Outcome::Asked(_)), "{asked:?}");
        let outcome = graph.resume(&thread(name)).answer::<Sure>(&sure).await.unwrap();
        assert_eq!(outcome.done().unwrap().log, [format!("sure: {sure}")]);
    }
}

#[tokio::test]
async fn with_a_hit_effects_do_not_happen() {
    let effects = Runs::default();
    let count = effects.clone();
    let mut g = Graph::<Work>::builder("work");
    let node = g.node("node", move |_: Arc<Work>, ctx: Context<()>| {
        let count = count.clone();
        async move {
            let effect = Effect::read(|| {
                let run = count.up();
                async move { Ok(run) }
            });
            Ok(Work::update().log([ctx.once("look", effect).await?.to_string()]))
        }
    });
    g.cache(node, HOUR, |_| ()).edge(START, node).edge(node, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    assert_eq!(log(&graph, &thread("t"), "why").await, ["1"]);
    assert_eq!(log(&graph, &thread("u"), "why").await, ["1"]);
    assert_eq!(effects.get(), 1);
}

/// A clock that is set.
#[derive(Debug, Clone, Default)]
struct Set(Arc<AtomicI64>);

impl Clock for Set {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::SeqCst), 0).unwrap()
    }

    fn id(&self) -> Uuid {
        stepgraph::RunId::random().as_uuid()
    }
}

#[tokio::test]
async fn an_entry_lives_as_long_as_it_may_by_the_graphs_clock() {
    let (runs, clock) = (Runs::default(), Set::default());
    let graph = counting("work", &runs).clock(clock.clone());
    assert_eq!(log(&graph, &thread("t"), "why").await, ["run 1"]);
    clock.0.store(3599, Ordering::SeqCst);
    assert_eq!(log(&graph, &thread("t"), "why").await, ["run 1"]);
    clock.0.store(3600, Ordering::SeqCst);
    assert_eq!(log(&graph, &thread("t"), "why").await, ["run 2"]);
    assert_eq!(log(&graph, &thread("t"), "why").await, ["run 2"]);
}

#[tokio::test]
async fn a_node_is_cleared_for_all_tenants_and_no_other_node_is() {
    let runs = Runs::default();
    let graph = counting("work", &runs);
    let (acme, other) = (thread("t"), thread_of("other", "t"));
    for key in [&acme, &other] {
        log(&graph, key, "why").await;
    }
    let error = graph.clear_cache("nodes").await.unwrap_err();
    assert_eq!(error.code(), "cache::unknown_node");
    assert_eq!(
        (log(&graph, &acme, "why").await, runs.get()),
        (vec!["run 1".to_owned()], 2)
    );
    graph.clear_cache("node").await.unwrap();
    for key in [&acme, &other] {
        log(&graph, key, "why").await;
    }
    assert_eq!(runs.get(), 4);
    let cache = MemoryCache::default();
    for node in ["a", "b"] {
        cache
            .put(&key_of(&acme, node).await, Arc::from([1_u8]), HOUR)
            .await
            .unwrap();
    }
    cache.clear("work", "a").await.unwrap();
    assert_eq!(cache.len(), 1);
    assert!(!cache.is_empty());
}

/// A key as the engine makes it.
async fn key_of(thread: &ThreadKey, node: &'static str) -> CacheKey {
    let seen = Broken::default();
    let mut g = Graph::<Work>::builder("work");
    let id = g.node(node, |_: Arc<Work>| async { Ok(()) });
    g.cache(id, HOUR, |_| ()).edge(START, id).edge(id, END);
    g.build()
        .unwrap()
        .node_cache(seen.clone())
        .run(thread, ask("why"))
        .await
        .unwrap();
    seen.0.lock().unwrap().kept.keys().next().unwrap().clone()
}

/// A cache that keeps, fails, hangs or damages.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Harm>>);

#[derive(Default)]
struct Harm {
    kept: HashMap<CacheKey, Vec<u8>>,
    how: How,
    calls: usize,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum How {
    #[default]
    Not,
    Fails,
    Hangs,
}

impl Broken {
    async fn strike(&self) -> Result<(), CacheError> {
        let how = {
            let mut harm = self.0.lock().unwrap();
            harm.calls += 1;
            harm.how
        };
        match how {
            How::Not => Ok(()),
            How::Hangs => pending().await,
            How::Fails => Err(CacheError::Unavailable {
                message: "gone".to_owned(),
                source: None,
            }),
        }
    }
}

#[async_trait]
impl NodeCache for Broken {
    async fn get(&self, key: &CacheKey) -> Result<Option<Arc<[u8]>>, CacheError> {
        self.strike().await?;
        Ok(self
            .0
            .lock()
            .unwrap()
            .kept
            .get(key)
            .map(|bytes| bytes.as_slice().into()))
    }

    async fn put(&self, key: &CacheKey, bytes: Arc<[u8]>, ttl: Duration) -> Result<(), CacheError> {
        assert_eq!(ttl, HOUR);
        self.strike().await?;
        self.0.lock().unwrap().kept.insert(key.clone(), bytes.to_vec());
        Ok(())
    }

    async fn clear(&self, _: &str, _: &str) -> Result<(), CacheError> {
        self.strike().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_fails_or_hangs_is_a_miss_and_no_failure_of_the_run() {
    for how in [How::Fails, How::Hangs] {
        let (runs, cache) = (Runs::default(), Broken::default());
        cache.0.lock().unwrap().how = how;
        let graph = counting("work", &runs).node_cache(cache.clone());
        assert_eq!(log(&graph, &thread("t"), "why").await, ["run 1"]);
        assert_eq!(log(&graph, &thread("t"), "why").await, ["run 2"]);
        assert_eq!(cache.0.lock().unwrap().calls, 4);
        if how == How::Fails {
            assert_eq!(
                graph.clear_cache("node").await.unwrap_err().code(),
                "cache::unavailable"
            );
        }
    }
}

#[tokio::test]
async fn damaged_bytes_are_a_miss_whichever_is_damaged() {
    let (runs, cache) = (Runs::default(), Broken::default());
    let graph = counting("work", &runs).node_cache(cache.clone());
    log(&graph, &thread("t"), "why").await;
    let whole = cache.0.lock().unwrap().kept.values().next().unwrap().clone();
    for at in 0..whole.len() {
        let before = runs.get();
        {
            let mut harm = cache.0.lock().unwrap();
            let bytes = harm.kept.values_mut().next().unwrap();
            bytes.clone_from(&whole);
            bytes[at] ^= 0x10;
        }
        log(&graph, &thread("t"), "why").await;
        assert_eq!(runs.get(), before + 1, "byte {at} of {whole:?}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_made_is_a_miss() {
    let runs = Runs::default();
    let count = runs.clone();
    let mut g = Graph::<Work>::builder("work");
    let node = g.node("node", move |_: Arc<Work>| {
        count.up();
        async { Ok(()) }
    });
    g.cache(node, HOUR, |work| {
        assert!(work.question.is_empty(), "no key");
    });
    g.edge(START, node).edge(node, END);
    let graph = g.build().unwrap();
    for _ in 0..2 {
        graph.run(&thread("t"), ask("why")).await.unwrap();
    }
    assert_eq!(runs.get(), 2);
}

#[tokio::test]
async fn a_graph_inside_a_node_uses_the_cache_of_the_graph_around_it() {
    let (runs, cache) = (Runs::default(), Arc::new(MemoryCache::default()));
    let mut g = Graph::<Work>::builder("outer");
    let host = g.node("host", counting("inner", &runs).as_node::<WorkInput, Arc<Work>>());
    g.edge(START, host).edge(host, END);
    let graph = g
        .build()
        .unwrap()
        .checkpointer(Memory::new())
        .node_cache(Shared(Arc::clone(&cache)));
    assert_eq!(log(&graph, &thread("t"), "why").await, ["run 1"]);
    assert_eq!(log(&graph, &thread("u"), "why").await, ["run 1"]);
    assert_eq!(cache.len(), 1);
}

#[tokio::test]
async fn the_cache_in_memory_keeps_to_its_bounds_and_drops_what_was_not_used_for_longest() {
    let (entries, bytes) = (MemoryCache::new(2, 1000), MemoryCache::new(10, 10));
    let tenant = thread("t");
    let mut keys = Vec::new();
    for node in ["a", "b", "c"] {
        keys.push(key_of(&tenant, node).await);
    }
    let kept = |cache: &MemoryCache| cache.len();
    for key in &keys[..2] {
        entries.put(key, Arc::from([0; 4]), HOUR).await.unwrap();
        bytes.put(key, Arc::from([0; 4]), HOUR).await.unwrap();
    }
    for cache in [&entries, &bytes] {
        assert!(cache.get(&keys[0]).await.unwrap().is_some());
        cache.put(&keys[2], Arc::from([0; 4]), HOUR).await.unwrap();
        assert_eq!(kept(cache), 2);
        assert!(
            cache.get(&keys[1]).await.unwrap().is_none(),
            "the one not used for longest is gone"
        );
        assert!(cache.get(&keys[0]).await.unwrap().is_some());
    }
    bytes.put(&keys[0], Arc::from([0; 11]), HOUR).await.unwrap();
    assert!(
        bytes.get(&keys[0]).await.unwrap().is_none(),
        "an entry larger than all of it is not kept"
    );
    assert_eq!(kept(&bytes), 1);
}
