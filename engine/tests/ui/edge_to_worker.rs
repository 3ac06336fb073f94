#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let grade = g.worker("grade", |_: Source| async move { Ok(()) });
    g.edge(START, grade);
}
