use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(State, Clone, Serialize, Deserialize)]
#[state(events = String)]
struct Chat {
    #[state(inputs)]
    question: String,
    #[state(per_run, reduce = Append)]
    sources: Vec<String>,
    #[state(per_run, per_run)]
    answer: String,
}

fn main() {}
