//! Three nodes in a row: each is given the state and gives back what changes.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, START, State, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Chat {
    #[state(input)]
    question: String,
    #[state(per_run, reducer = Append)]
    sources: Vec<String>,
    #[state(per_run)]
    answer: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", |chat: Arc<Chat>| async move {
        Ok(Chat::update().sources([format!("a page about {}", chat.question)]))
    });
    let generate = g.node("generate", |chat: Arc<Chat>| async move {
        Ok(Chat::update().answer(format!("{} source found", chat.sources.len())))
    });
    let log = g.node("log", |chat: Arc<Chat>| async move {
        println!("log: {:?} from {:?}", chat.answer, chat.sources);
        Ok(())
    });
    g.edge(START, retrieve)
        .edge(retrieve, generate)
        .edge(generate, log)
        .edge(log, END);
    let graph = g.build()?;
    println!("{}", graph.mermaid());

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let outcome = graph.run(&thread, ChatInput::new("kettles")).await?;
    let answer = outcome.done().and_then(|chat| chat.answer);
    println!("answer: {answer:?}");
    assert_eq!(answer.as_deref(), Some("1 source found"));
    Ok(())
}
