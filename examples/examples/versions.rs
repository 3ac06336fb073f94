//! A program that changes while a thread waits: the state is migrated, and a node has another name.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Checkpointer, Memory, prelude::*};

#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve;

/// As it was when the thread began.
#[derive(State, Clone, Serialize, Deserialize)]
struct OrderV1 {
    #[state(input)]
    cents: u64,
    approved: bool,
}

/// As it is now: with a currency, which every old order had tacitly.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(version = 2, from = OrderV1)]
struct Order {
    #[state(input)]
    cents: u64,
    #[state(input)]
    currency: String,
    approved: bool,
}

impl From<OrderV1> for Order {
    fn from(old: OrderV1) -> Self {
        Self {
            cents: old.cents,
            currency: "EUR".into(),
            approved: old.approved,
        }
    }
}

/// What tasks of an unfinished step have given back is migrated as well.
impl From<OrderV1Update> for OrderUpdate {
    fn from(old: OrderV1Update) -> Self {
        let old = old.into_fields();
        OrderUpdateFields {
            cents: old.cents,
            approved: old.approved,
            ..OrderUpdateFields::default()
        }
        .into()
    }
}

fn old() -> Result<Graph<OrderV1>, stepgraph::BuildErrors> {
    let mut g = Graph::<OrderV1>::builder("order");
    let ask = g.node("ask", |_: Arc<OrderV1>, ctx: Context<()>| async move {
        Ok(OrderV1::update().approved(ctx.ask(Approve)?))
    });
    g.edge(START, ask).edge(ask, END);
    g.build()
}

fn new() -> Result<Graph<Order>, stepgraph::BuildErrors> {
    let mut g = Graph::<Order>::builder("order");
    let approve = g.node("approve", |_: Arc<Order>, ctx: Context<()>| async move {
        Ok(Order::update().approved(ctx.ask(Approve)?))
    });
    g.renamed("ask", approve).edge(START, approve).edge(approve, END);
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    old()?
        .shared_checkpointer(Arc::clone(&store))
        .run(&thread, OrderV1Input::new(4200_u64))
        .await?;

    let graph = new()?.shared_checkpointer(store);
    let order = graph.resume(&thread).answer::<Approve>(&true).await?.done();
    println!("{order:?}");
    assert_eq!(
        order,
        Some(Order {
            cents: 4200,
            currency: "EUR".into(),
            approved: true
        })
    );
    Ok(())
}
