#[path = "types/chat.rs"]
mod chat;
use chat::Chat;
use stepgraph::State;

fn main() {
    let _ = Chat::update().anwser("so".to_owned());
}
