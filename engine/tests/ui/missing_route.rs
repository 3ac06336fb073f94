#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", |_: Chat| async move { Ok(()) });
    let choose = |chat: &Chat| if chat.sources.is_empty() { Found::Nothing } else { Found::Some };
    g.branch(retrieve, choose, |found| match found {
        Found::Some => to(END),
    });
}
