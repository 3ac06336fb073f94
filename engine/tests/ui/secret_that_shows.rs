use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
struct Flat {
    #[state(secret)]
    #[serde(flatten)]
    keys: BTreeMap<String, String>,
}

#[derive(State, Clone, Serialize, Deserialize)]
#[state(input_derive(Debug))]
struct Login {
    #[state(input, secret)]
    password: String,
}

fn main() {}
