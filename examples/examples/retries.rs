//! A node that fails is tried again: after which errors, how often and with what waits between is its policy.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Context, END, EventKind, Graph, NodeError, Policy, Retry, RunError, RunEvent, START, State, TenantId, ThreadId,
    ThreadKey,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Order {
    #[state(input)]
    card: String,
    receipt: Option<String>,
}

/// The bank is busy twice, and never takes an order without a card.
fn order() -> Result<Graph<Order>, stepgraph::BuildErrors> {
    let mut g = Graph::<Order>::builder("order");
    let pay = g.node("pay", |order: Arc<Order>, ctx: Context<()>| async move {
        match ctx.attempt() {
            _ if order.card.is_empty() => Err(NodeError::terminal("there is no card")),
            1 | 2 => Err(NodeError::retryable("the bank is busy")),
            attempt => Ok(Order::update().receipt(format!("paid in attempt {attempt}"))),
        }
    });
    g.edge(START, pay).edge(pay, END);
    let thrice = Retry::attempts(const { NonZeroU32::new(3).unwrap() });
    g.policy(pay, Policy::new().retry(thrice.first_delay(Duration::from_millis(2))));
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (graph, thread) = (
        order()?,
        ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random()),
    );
    let (mut receipt, mut retries) = (None, 0);
    let mut stream = graph
        .run(
            &thread,
            OrderInput {
                card: "4711".to_owned(),
            },
        )
        .stream();
    while let Some(event) = stream.next().await {
        match event? {
            RunEvent::Event(event) => {
                if let EventKind::Retry {
                    attempt, error, delay, ..
                } = event.kind
                {
                    println!("attempt {attempt} failed ({error}); the next waits {delay:?}");
                    retries += 1;
                }
            }
            RunEvent::Ended(outcome) => receipt = outcome.done().and_then(|order| order.receipt),
            _ => {}
        }
    }
    assert_eq!((receipt.as_deref(), retries), (Some("paid in attempt 3"), 2));
    // A terminal error is not worth another attempt.
    let refused = graph.run(&thread, OrderInput { card: String::new() }).await;
    assert!(matches!(refused, Err(RunError::Node { attempts: 1, .. })));
    Ok(())
}
