//! Every step of a thread is kept: its history, and the state as it was at each of them.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, END, Graph, Memory, START, State, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, Page},
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Chat {
    #[state(input, reducer = Append)]
    messages: Vec<String>,
    /// Of one run alone.
    #[state(per_run)]
    topic: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Chat>::builder("chat");
    let classify = g.node("classify", |chat: Arc<Chat>| async move {
        let topic = chat.messages.last().and_then(|message| message.split(' ').next_back());
        Ok(Chat::update().topic(topic.map(str::to_owned)))
    });
    let answer = g.node("answer", |chat: Arc<Chat>| async move {
        Ok(Chat::update().messages([format!("about {}: yes", chat.topic.as_deref().unwrap_or("nothing"))]))
    });
    g.edge(START, classify).edge(classify, answer).edge(answer, END);
    let graph = g.build()?.checkpointer(Memory::new());

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    for message in ["is there a warranty", "is there a manual"] {
        graph.run(&thread, ChatInput::new([message.to_owned()])).await?;
    }
    println!("step  source  next        messages  topic");
    for entry in graph.history(&thread, Page::default()).await? {
        let Some(then) = graph.state(&thread, At::Id(entry.id)).await? else {
            continue;
        };
        println!(
            "{:>4}  {:<6}  {:<10}  {:>8}  {:?}",
            entry.step,
            format!("{:?}", entry.source),
            entry.next.join(", "),
            then.state.messages.len(),
            then.state.topic
        );
    }
    Ok(())
}
