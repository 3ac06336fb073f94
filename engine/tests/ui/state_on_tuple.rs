use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat(String, u64);

fn main() {}
