use serde::{Deserialize, Serialize};
use stepgraph::{State, View};

#[derive(State, Clone, Serialize, Deserialize)]
struct Login {
    #[state(input)]
    name: String,
    #[state(input, secret)]
    password: String,
}

#[derive(View, Serialize)]
#[view(of = Login)]
struct Shown {
    name: String,
    password: String,
}

#[derive(View)]
#[view(of = Login)]
struct Renamed {
    #[view(from = password)]
    word: String,
    #[view(secret)]
    name: String,
}

fn main() {}
