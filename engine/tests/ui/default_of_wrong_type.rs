use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat {
    #[state(input, default = "en")]
    language: String,
}

fn main() {}
