//! A node that keeps failing is answered for by a handler, in the same step; a crash in between goes on in the handler.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Context, END, Failed, Graph, Memory, NodeError, Policy, Retry, START, State, TenantId, ThreadId, ThreadKey,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Chat {
    #[state(input)]
    question: String,
    answer: Option<String>,
}

#[derive(Debug)]
struct ModelDown;

impl std::fmt::Display for ModelDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the model does not answer")
    }
}

impl std::error::Error for ModelDown {}

fn chat() -> Result<Graph<Chat>, stepgraph::BuildErrors> {
    let mut g = Graph::<Chat>::builder("chat");
    let generate = g.node("generate", |_: Arc<Chat>, ctx: Context<()>| async move {
        println!("  attempt {}", ctx.attempt());
        Err::<ChatUpdate, _>(NodeError::from(ModelDown).with_code("model::down"))
    });
    let apologise = g.handler("apologise", |failed: Failed<Arc<Chat>>| async move {
        let failure = failed.failure();
        println!(
            "  {} failed: {}",
            failure.code.as_deref().unwrap_or("it"),
            failure.message
        );
        Ok(Chat::update().answer(format!(
            "Sorry, I cannot say anything about {} now.",
            failed.input.question
        )))
    });
    g.edge(START, generate).edge(generate, END);
    g.on_error(generate, apologise).edge(apologise, END);
    let thrice = Retry::attempts(NonZeroU32::MIN.saturating_add(2)).first_delay(Duration::from_millis(1));
    g.policy(generate, Policy::new().retry(thrice));
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = chat()?.checkpointer(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let input = ChatInput {
        question: "the warranty".to_owned(),
    };
    let answer = graph.run(&thread, input).await?.done().and_then(|chat| chat.answer);
    println!("{}", answer.as_deref().unwrap_or_default());
    assert_eq!(
        answer.as_deref(),
        Some("Sorry, I cannot say anything about the warranty now.")
    );
    Ok(())
}
