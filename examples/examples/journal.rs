//! An outside effect runs once, however often its node is entered: its result is in the journal.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Context, END, Effect, Graph, Memory, NodeError, Policy, Retry, START, State, TenantId, ThreadId, ThreadKey,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Order {
    #[state(input)]
    cents: u64,
    receipt: Option<String>,
}

/// Stands for a payment service that takes a key, so that one payment asked for twice is made once.
static PAYMENTS: AtomicU32 = AtomicU32::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Order>::builder("order");
    let pay = g.node("pay", |order: Arc<Order>, ctx: Context<()>| async move {
        println!("attempt {}", ctx.attempt());
        let charge = Effect::idempotent(|key| async move {
            let number = PAYMENTS.fetch_add(1, Ordering::SeqCst) + 1;
            println!("  payment {number} under key {}", key.as_str());
            Ok(format!("receipt {number}"))
        });
        let receipt: String = ctx.once("charge", charge).await?;
        if ctx.attempt() < 3 {
            return Err(NodeError::retryable("the mail server is down"));
        }
        println!("  {} cents, {receipt}, paid at {}", order.cents, ctx.now());
        Ok(Order::update().receipt(receipt))
    });
    let attempts = NonZeroU32::new(3).ok_or("three is not zero")?;
    g.policy(
        pay,
        Policy::new().retry(Retry::attempts(attempts).first_delay(Duration::from_millis(10))),
    );
    g.edge(START, pay).edge(pay, END);
    let graph = g.build()?.checkpointer(Memory::new());

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let outcome = graph.run(&thread, OrderInput { cents: 1999 }).await?;
    let payments = PAYMENTS.load(Ordering::SeqCst);
    println!("{:?}, payments made: {payments}", outcome.done());
    assert_eq!(payments, 1);
    Ok(())
}
