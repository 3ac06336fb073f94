#[path = "types/chat.rs"]
mod chat;
use chat::Chat;
use stepgraph::View;

#[derive(View)]
#[view(of = Chat)]
struct Query {
    text: String,
    #[view(from = tokens)]
    language: String,
}

fn main() {}
