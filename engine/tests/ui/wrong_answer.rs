#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn answer(graph: &Graph<Chat>, thread: &ThreadKey) {
    let _run = graph.resume(thread).answer::<Review>(&"yes");
}

fn main() {}
