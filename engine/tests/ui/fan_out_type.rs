#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", |_: Chat| async move { Ok(()) });
    let grade = g.worker("grade", |_: Source| async move { Ok(()) });
    g.fan_out(retrieve, grade, |chat| vec![chat.question.clone()]);
}
