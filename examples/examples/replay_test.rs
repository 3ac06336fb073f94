//! A recorded thread as a test: after a change of the graph, does it still do what it did?

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Memory, Recording, prelude::*};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Chat {
    #[state(input)]
    question: String,
    #[state(per_run)]
    answer: Option<String>,
}

/// The model is asked by `ctx.recorded`, so that its replies can be given from the record.
fn chat(prompt: &'static str) -> Result<Graph<Chat>, stepgraph::BuildErrors> {
    let mut g = Graph::<Chat>::builder("chat");
    let answer = g.node("answer", move |chat: Arc<Chat>, ctx: Context<()>| async move {
        let prompt = format!("{prompt} {}", chat.question);
        let model = || async { Ok(format!("a long answer to `{prompt}`")) };
        let answer: String = ctx.recorded("model", &prompt, model).await?;
        Ok(Chat::update().answer(answer))
    });
    g.edge(START, answer).edge(answer, END);
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::new("session-1")?);
    let recorded = chat("Answer in short:")?
        .shared_checkpointer(store.clone())
        .recording(Recording::Calls);
    let question = "how long is the warranty?".to_owned();
    recorded.run(&thread, ChatInput { question }).await?;

    let same = recorded.replay(&thread).bodies().await?;
    assert_eq!((same.checkpoints, same.bodies, &same.divergence), (2, 1, &None));

    let changed = chat("Answer at length:")?.shared_checkpointer(store);
    let replayed = changed.replay(&thread).bodies().await?;
    let told = replayed.to_string();
    assert!(
        told.contains("Answer in short:") && told.contains("Answer at length:"),
        "{told}"
    );
    Ok(())
}
