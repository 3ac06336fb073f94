use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(Clone, Serialize, Deserialize)]
struct Password(String);

#[derive(State, Clone, Serialize, Deserialize)]
struct Login {
    #[state(input, secret)]
    password: Password,
}

fn main() {}
