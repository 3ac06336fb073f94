#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", |_: Chat| async move { Ok(()) });
    g.branch(retrieve, |chat: &Chat| chat.sources.is_empty(), |_| to(END));
}
