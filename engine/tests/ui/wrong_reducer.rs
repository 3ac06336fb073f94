use serde::{Deserialize, Serialize};
use stepgraph::{Append, State};

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat {
    #[state(reducer = Append)]
    answer: String,
}

fn main() {}
