//! A reducer of one's own: how the updates of parallel tasks merge into a field. Here the best offer wins.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{END, Graph, Reducer, START, State, TenantId, ThreadId, ThreadKey};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Offer {
    shop: String,
    cents: u64,
}

/// Keeps the cheapest offer; the first one if two cost the same.
struct Cheapest;

impl Reducer<Option<Offer>> for Cheapest {
    type Update = Offer;
    const ID: &'static str = "cheapest";
    const CONCURRENT: bool = true;

    fn first(update: Offer) -> Option<Offer> {
        Some(update)
    }

    fn reduce(current: &mut Option<Offer>, update: Offer) {
        if current.as_ref().is_none_or(|best| update.cents < best.cents) {
            *current = Some(update);
        }
    }
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Search {
    #[state(input)]
    article: String,
    #[state(reducer = Cheapest)]
    best: Option<Offer>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Search>::builder("offers");
    for (shop, cents) in [("corner", 4200), ("market", 3900), ("mall", 3900)] {
        let node = g.node(shop, move |search: Arc<Search>| async move {
            println!("{shop}: {} for {cents} cents", search.article);
            Ok(Search::update().best(Offer {
                shop: shop.to_owned(),
                cents,
            }))
        });
        g.edge(START, node).edge(node, END);
    }
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let outcome = g.build()?.run(&thread, SearchInput::new("kettle")).await?;
    // Updates merge by the nodes' names, so `mall` comes before `market`, whoever answered first.
    let best = outcome.done().and_then(|search| search.best);
    println!("best: {best:?}");
    assert_eq!(best.map(|offer| offer.shop).as_deref(), Some("mall"));
    Ok(())
}
