#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

use serde::{Deserialize, Serialize};

#[derive(State, Clone, Serialize, Deserialize)]
struct Other {
    n: u64,
}

fn main() {
    let mut other = Graph::<Other>::builder("other");
    let count = other.node("count", |_: Other| async move { Ok(()) });
    let mut g = Graph::<Chat>::builder("chat");
    g.edge(START, count);
}
