//! A join waits for ways of different length, and a run tells when it waits for something that was never started.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, Outcome, Route, START, State, TenantId, ThreadId, ThreadKey, to};

#[derive(State, Clone, Serialize, Deserialize)]
struct Order {
    #[state(input)]
    by_courier: bool,
    #[state(reducer = Append)]
    done: Vec<String>,
}

#[derive(Route, Clone, Copy)]
enum Delivery {
    Courier,
    PickUp,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Order>::builder("order");
    let [pay, pack, label, ship] = ["pay", "pack", "label", "ship"].map(|name| {
        g.node(name, move |_: Arc<Order>| async move {
            Ok(Order::update().done([name.to_owned()]))
        })
    });
    g.edge(START, pay).edge(START, pack);
    g.branch(
        pack,
        |order: &Order| {
            if order.by_courier {
                Delivery::Courier
            } else {
                Delivery::PickUp
            }
        },
        |delivery| match delivery {
            Delivery::Courier => to(label),
            Delivery::PickUp => to(END),
        },
    );
    g.join([pay, label], ship).edge(ship, END);
    let graph = g.build()?;

    for by_courier in [true, false] {
        let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
        match graph.run(&thread, OrderInput { by_courier }).await? {
            Outcome::Done(order) => {
                println!("done: {:?}", order.done);
                assert_eq!(order.done, ["pack", "pay", "label", "ship"]);
            }
            Outcome::Stalled { state, waiting } => {
                println!("{:?}, and then stalled: {waiting:?}", state.done);
                assert!(!by_courier && waiting.len() == 1);
            }
            other => println!("{other:?}", other = other.done().map(|order| order.done)),
        }
    }
    Ok(())
}
