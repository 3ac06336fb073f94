#[path = "types/chat.rs"]
mod chat;
use std::sync::Arc;

use chat::*;
use stepgraph::{Failed, prelude::*};

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let recover = g.handler_router("recover", |_: Failed<Arc<Chat>>| async move {
        Ok(Command { update: Chat::update(), goto: Found::Nothing })
    });
    g.edge(recover, END);
}
