#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

struct Plain;

fn main() {
    let _ = Graph::<Plain>::builder("plain");
}
