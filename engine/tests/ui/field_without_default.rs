use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(Clone, Serialize, Deserialize)]
struct Customer(String);

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat {
    customer: Customer,
}

fn main() {}
