use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Login {
    #[state(input, secret)]
    password: String,
}

fn main() {}
