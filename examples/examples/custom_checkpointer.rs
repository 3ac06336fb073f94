//! A store of one's own: one around the store in memory that counts its transactions. The suite of `stepgraph-checkpoint`
//! says whether it works.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    CheckpointError, Checkpointer, END, Graph, Memory, Namespace, START, State, TenantId, ThreadId, ThreadKey,
    async_trait,
    checkpoint::{
        At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, Seq, StoreDurability, Tag, Thinning,
    },
};
use stepgraph_checkpoint::conformance;
use uuid::Uuid;

#[derive(Debug, Default)]
struct Counted {
    inner: Memory,
    commits: AtomicU64,
}

type Kept<T> = Result<T, CheckpointError>;

#[async_trait]
impl Checkpointer for Counted {
    fn durability(&self) -> StoreDurability {
        self.inner.durability()
    }
    async fn claim(&self, key: &ThreadKey) -> Kept<Epoch> {
        self.inner.claim(key).await
    }
    async fn commit(&self, key: &ThreadKey, epoch: Epoch, expected: Option<Seq>, commit: Commit) -> Kept<Option<Seq>> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.inner.commit(key, epoch, expected, commit).await
    }
    async fn get(&self, key: &ThreadKey, at: At) -> Kept<Option<Checkpoint>> {
        self.inner.get(key, at).await
    }
    async fn list(&self, key: &ThreadKey, page: Page) -> Kept<Vec<CheckpointInfo>> {
        self.inner.list(key, page).await
    }
    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Kept<()> {
        self.inner.branch(key, epoch, from, name).await
    }
    async fn branches(&self, key: &ThreadKey) -> Kept<Vec<Branch>> {
        self.inner.branches(key).await
    }
    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Kept<Vec<Namespace>> {
        self.inner.inner(key, after, limit).await
    }
    async fn delete(&self, key: &ThreadKey) -> Kept<()> {
        self.inner.delete(key).await
    }
    async fn unfinished(&self, graph: &str, limit: u32) -> Kept<Vec<ThreadKey>> {
        self.inner.unfinished(graph, limit).await
    }
    async fn outbox(&self, topic: &str, limit: u32) -> Kept<Vec<(ThreadKey, OutboxMessage)>> {
        self.inner.outbox(topic, limit).await
    }
    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Kept<()> {
        self.inner.acknowledge(key, message).await
    }
    // What follows a store may leave out; the suite is then told so by `check_except`.
    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Kept<()> {
        self.inner.tag(key, name, at).await
    }
    async fn tags(&self, key: &ThreadKey) -> Kept<Vec<Tag>> {
        self.inner.tags(key).await
    }
    async fn threads(&self, tenant: &TenantId, after: Option<&ThreadId>, limit: u32) -> Kept<Vec<ThreadId>> {
        self.inner.threads(tenant, after, limit).await
    }
    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Kept<()> {
        self.inner.thin(key, thinning).await
    }
    async fn erase(&self, tenant: &TenantId) -> Kept<()> {
        self.inner.erase(tenant).await
    }
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Count {
    #[state(input)]
    n: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let report = conformance::check(async || Counted::default()).await;
    println!("{report}");
    assert!(report.passed());

    let store = Arc::new(Counted::default());
    let mut g = Graph::<Count>::builder("count");
    let add = g.node(
        "add",
        |count: Arc<Count>| async move { Ok(Count::update().n(count.n + 1)) },
    );
    g.edge(START, add).edge(add, END);
    let graph = g.build()?.shared_checkpointer(store.clone());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    graph.run(&thread, CountInput { n: 1 }).await?;
    let commits = store.commits.load(Ordering::Relaxed);
    println!("one run of one step: {commits} transactions, the admission and the step");
    assert_eq!(commits, 2);
    Ok(())
}
