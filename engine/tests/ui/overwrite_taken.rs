use serde::{Deserialize, Serialize};
use stepgraph::{Append, State};

#[derive(State, Clone, Serialize, Deserialize)]
struct Chat {
    #[state(reducer = Append)]
    log: Vec<String>,
    overwrite_log: bool,
}

fn main() {}
