use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct Mail {
    from: String,
    touched: bool,
}

fn main() {}
