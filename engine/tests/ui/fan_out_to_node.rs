#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", |_: Chat| async move { Ok(()) });
    g.fan_out(START, retrieve, |chat: &Chat| chat.sources.clone());
}
