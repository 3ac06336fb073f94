use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat<T> {
    answer: T,
}

fn main() {}
