use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
enum Chat {
    Waiting,
    Answered(String),
}

fn main() {}
