//! Layers around every node of a graph: how long each takes, and who may run what.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::{
    END, Graph, Layer, Next, NodeError, Ran, START, State, TaskInfo, TenantId, ThreadId, ThreadKey, Timing, Tracing,
    async_trait,
};

#[derive(State, Clone, Serialize, Deserialize)]
struct Order {
    #[state(input)]
    item: String,
    bill: Option<String>,
}

/// A layer of one's own: only one tenant may be billed.
struct Billed(&'static str);

#[async_trait]
impl Layer for Billed {
    async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        if task.node == "bill" && task.tenant().as_str() != self.0 {
            return Err(NodeError::terminal(format!("`{}` has no account", task.tenant())));
        }
        next.run().await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Order>::builder("order");
    let pack = g.node("pack", |_: Arc<Order>| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    });
    let bill = g.node("bill", |order: Arc<Order>| async move {
        Ok(Order::update().bill(format!("one {}", order.item)))
    });
    g.edge(START, pack).edge(pack, bill).edge(bill, END);

    let timing = Timing::new();
    // The first is the outermost: `Tracing` opens its spans around the others.
    let graph = g.build()?.layer(Tracing).layer(timing.clone()).layer(Billed("acme"));

    let thread =
        |tenant| Ok::<_, stepgraph::InvalidId>(ThreadKey::new(TenantId::authenticated(tenant)?, ThreadId::random()));
    let outcome = graph.run(&thread("acme")?, OrderInput::new("kettle")).await?;
    assert_eq!(
        outcome.done().and_then(|order| order.bill).as_deref(),
        Some("one kettle")
    );

    let refused = graph.run(&thread("other")?, OrderInput::new("kettle")).await;
    println!("{}", refused.err().map(|error| error.to_string()).unwrap_or_default());

    for (_, node, times) in timing.all() {
        println!("{node}: {} attempts, {:?} in all", times.count, times.total);
    }
    assert_eq!(
        (
            timing.of("order", "pack").count,
            timing.of("order", "bill").without_output
        ),
        (2, 1)
    );
    assert!(timing.of("order", "pack").max >= Duration::from_millis(20));
    Ok(())
}
