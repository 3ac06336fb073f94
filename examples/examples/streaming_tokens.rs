//! A node emits tokens as they come; the reader sees them before the node has ended, and its pace is the node's pace.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{Context, END, EventKind, Graph, RunEvent, START, State, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Token)]
struct Chat {
    #[state(input)]
    question: String,
    answer: Option<String>,
}

/// What nodes emit.
#[derive(Debug)]
struct Token(String);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Chat>::builder("chat");
    let generate = g.node("generate", |chat: Arc<Chat>, ctx: Context<Token>| async move {
        let answer = format!("You asked: {} I answer word by word.", chat.question);
        for word in answer.split_inclusive(' ') {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ctx.emit(Token(word.to_owned())).await;
        }
        Ok(Chat::update().answer(answer))
    });
    g.edge(START, generate).edge(generate, END);
    let graph = g.build()?;

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let mut stream = graph.run(&thread, ChatInput::new("does it stream?")).stream();
    let mut heard = String::new();
    while let Some(item) = stream.next().await {
        match item? {
            RunEvent::Event(event) => match event.kind {
                EventKind::Custom {
                    event: Token(token), ..
                } => {
                    println!("{:>3} {token}", event.seq);
                    heard += &token;
                }
                other => println!("{:>3} {other:?}", event.seq),
            },
            RunEvent::Ended(outcome) => {
                let answer = outcome.done().and_then(|chat| chat.answer);
                println!("    ended: {answer:?}");
                assert_eq!(answer.as_ref(), Some(&heard), "the tokens are the answer");
            }
            other => println!("    {other:?}"),
        }
    }
    Ok(())
}
