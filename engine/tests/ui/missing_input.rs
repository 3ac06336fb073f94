#[path = "types/chat.rs"]
mod chat;
use chat::ChatInput;

fn main() {
    let _ = ChatInput {
        language: "en".to_owned(),
    };
    let _ = ChatInput::new();
    let _ = ChatInput::default();
}
