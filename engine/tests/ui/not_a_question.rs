#[path = "types/chat.rs"]
mod chat;
use chat::*;
use stepgraph::prelude::*;

#[derive(serde::Serialize)]
struct Draft;

fn main() {
    let mut g = Graph::<Chat>::builder("chat");
    let _review = g.node("review", |_: Chat, ctx: Context<()>| async move {
        ctx.ask(Draft)?;
        Ok(())
    });
}
