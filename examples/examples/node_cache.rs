//! What a node gave for the same question is taken again, for a while, by the same tenant.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{END, Graph, MemoryCache, START, State, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Serialize, Deserialize)]
struct Words {
    #[state(input)]
    text: String,
    #[state(per_run)]
    count: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counted = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&counted);

    let mut g = Graph::<Words>::builder("words");
    let count = g.node("count", move |words: Arc<Words>| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move { Ok(Words::update().count(words.text.split_whitespace().count())) }
    });
    // The key is everything that the node's output depends on.
    g.cache(count, Duration::from_mins(10), |words| words.text.clone());
    g.edge(START, count).edge(count, END);
    // Without this line the graph has such a cache of its own.
    let graph = g.build()?.node_cache(MemoryCache::new(1000, 1024 * 1024));

    let text = "set the kettle on its base";
    for (tenant, runs) in [("acme", 1), ("acme", 1), ("other", 2)] {
        let thread = ThreadKey::new(TenantId::authenticated(tenant)?, ThreadId::random());
        let outcome = graph.run(&thread, WordsInput::new(text)).await?;
        let runs_now = counted.load(Ordering::SeqCst);
        println!(
            "{tenant}: {:?} words, the node has run {runs_now} time(s)",
            outcome.done().and_then(|w| w.count)
        );
        assert_eq!(runs_now, runs);
    }
    graph.clear_cache("count").await?;
    Ok(())
}
