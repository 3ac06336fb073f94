use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat {
    #[state(default = 3)]
    tries: u32,
}

fn main() {}
