//! As many at once as a service can bear: of one run, and over all runs that share a limiter.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{
    future::IntoFuture,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, Limiter, START, State, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Serialize, Deserialize)]
struct Pages {
    #[state(input)]
    addresses: Vec<String>,
    #[state(reducer = Append)]
    read: Vec<String>,
}

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();
const THREE: NonZeroU32 = NonZeroU32::new(3).unwrap();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let site = Limiter::new("site", THREE);

    let mut g = Graph::<Pages>::builder("read_pages");
    let read = g.worker("read", move |address: String| {
        let (now, most) = counts.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Pages::update().read([address]))
        }
    });
    g.limit(read, &site);
    g.fan_out(START, read, |pages: &Pages| pages.addresses.clone());
    g.edge(read, END);
    let graph = g.build()?;

    let tenant = TenantId::authenticated("acme")?;
    let input = || PagesInput::new((1..=8).map(|page| format!("page {page}")).collect::<Vec<_>>());
    let one = ThreadKey::new(tenant.clone(), ThreadId::random());
    graph.run(&one, input()).concurrency(TWO).await?;
    println!("one run, two at once: {}", most.swap(0, Ordering::SeqCst));

    let two = ThreadKey::new(tenant, ThreadId::random());
    let (a, b) = tokio::join!(
        graph.run(&one, input()).into_future(),
        graph.run(&two, input()).into_future()
    );
    let most = most.load(Ordering::SeqCst);
    println!("two runs that share the site's three: {most}");
    assert_eq!(most, 3);
    for outcome in [a?, b?] {
        assert_eq!(outcome.done().map(|pages| pages.read.len()), Some(8));
    }
    Ok(())
}
