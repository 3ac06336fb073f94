#[path = "types/chat.rs"]
mod chat;
use std::sync::Arc;

use chat::*;
use stepgraph::{Failed, prelude::*};

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let apologise = g.handler("apologise", |_: Failed<Arc<Chat>>| async move { Ok(()) });
    g.on_error(apologise, apologise);
}
