//! The test kit: the path of a run, what no run has covered, and a graph under accidents.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "an example prints what it shows, and its graph is sound"
)]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Context, END, Effect, Graph, Route, START, State, TenantId, ThreadId, ThreadKey,
    testing::{Coverage, TestRun, assert_path, torture},
    to,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Order {
    #[state(input)]
    pieces: u64,
    paid: Option<u64>,
}

#[derive(Route, Clone, Copy)]
enum Stock {
    There,
    Empty,
}

/// A graph that pays for what is in stock.
fn order() -> Graph<Order> {
    let mut g = Graph::<Order>::builder("order");
    let look = g.node("look", |_: Arc<Order>| async { Ok(()) });
    let pay = g.node("pay", |order: Arc<Order>, ctx: Context<()>| async move {
        let pieces = order.pieces;
        let paid = ctx
            .once("pay", Effect::idempotent(|_| async move { Ok(pieces * 3) }))
            .await?;
        Ok(Order::update().paid(paid))
    });
    let sorry = g.node("sorry", |_: Arc<Order>| async { Ok(()) });
    let stock = |order: &Order| if order.pieces < 10 { Stock::There } else { Stock::Empty };
    g.edge(START, look).edge(pay, END).edge(sorry, END);
    g.branch(look, stock, |stock| match stock {
        Stock::There => to(pay),
        Stock::Empty => to(sorry),
    });
    g.build().expect("the graph is sound")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let (graph, coverage) = Coverage::of(order());

    let run = TestRun::of(graph.run(&thread, OrderInput::new(2_u64))).await;
    assert_path(&run, ["look", "pay"]);
    println!("{coverage}");
    assert_eq!(coverage.missing(), ["node `sorry`", "the route `empty` from `look`"]);

    let run = TestRun::of(graph.run(&thread, OrderInput::new(20_u64))).await;
    assert_path(&run, ["look", "sorry"]);
    assert!(coverage.missing().is_empty());

    // The store fails, answers get lost, the run is dropped, nodes fail: the order ends the same, and is paid once.
    let report = torture(order, OrderInput::new(2_u64)).seeds(0..200).run().await?;
    println!("{report:?}");
    assert_eq!(report.seeds, 200);
    Ok(())
}
