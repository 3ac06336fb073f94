use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct ChatV1 {
    #[state(input)]
    query: String,
}

#[derive(State, Clone, Serialize, Deserialize)]
#[state(from = ChatV1)]
struct Chat {
    #[state(input)]
    question: String,
}

impl From<ChatV1> for Chat {
    fn from(old: ChatV1) -> Self {
        Self { question: old.query }
    }
}

impl From<ChatV1Update> for ChatUpdate {
    fn from(old: ChatV1Update) -> Self {
        let old = old.into_fields();
        ChatUpdateFields { question: old.query }.into()
    }
}

fn main() {}
