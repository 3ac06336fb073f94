#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

struct Answer;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let _generate = g.node("generate", |_: Chat| async move { Ok(Answer) });
}
