#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

struct Query;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let _retrieve = g.node("retrieve", |_: Query| async move { Ok(()) });
}
