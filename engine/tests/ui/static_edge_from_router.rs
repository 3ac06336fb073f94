#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let review = g.router("review", |_: Chat| async move {
        Ok(Command {
            update: (),
            goto: Found::Some,
        })
    });
    g.edge(review, END);
}
