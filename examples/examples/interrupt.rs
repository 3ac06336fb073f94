//! A node asks a person. The run ends there, and nothing is held; the answer goes on where it was.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{Answers, Ask, Context, END, Graph, Memory, Outcome, START, State, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Refund {
    #[state(input)]
    euros: u32,
    decision: Option<String>,
}

/// The question, with the type of its answer.
#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve {
    euros: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Refund>::builder("refund");
    let decide = g.node("decide", |refund: Arc<Refund>, ctx: Context<()>| async move {
        println!("  `decide` is entered");
        let approved = ctx.ask(Approve { euros: refund.euros })?;
        Ok(Refund::update().decision(if approved { "paid" } else { "refused" }.to_owned()))
    });
    g.edge(START, decide).edge(decide, END);
    // A question outlives the run, so it needs somewhere to be kept.
    let graph = g.build()?.checkpointer(Memory::new());

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    if let Outcome::Asked(questions) = graph.run(&thread, RefundInput { euros: 40 }).await? {
        for question in questions {
            println!(
                "asked {}: {}, answer: {}",
                question.id, question.payload, question.answer_schema
            );
        }
    }
    println!("an answer of the wrong type, as it may come over HTTP:");
    if let Outcome::Asked(questions) = graph.resume(&thread).answers(Answers::One(json!("maybe"))).await? {
        println!(
            "still open: {:?}",
            questions.first().and_then(|question| question.problem.clone())
        );
    }
    println!("an answer whose type the compiler checks:");
    let outcome = graph.resume(&thread).answer::<Approve>(&true).await?;
    let decision = outcome.done().and_then(|refund| refund.decision);
    println!("{decision:?}");
    assert_eq!(decision.as_deref(), Some("paid"));
    Ok(())
}
