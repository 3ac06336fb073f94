#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

#[deny(unused_must_use)]
fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    g.router("review", |_: Chat| async move {
        Ok(Command {
            update: (),
            goto: Found::Some,
        })
    });
}
