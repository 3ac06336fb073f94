use serde::{Deserialize, Serialize};
use stepgraph::State;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Grade(u8);

#[derive(State, Clone, Serialize, Deserialize)]
struct Exam {
    grade: Grade,
}

fn main() {
    let _ = Exam::update().grade("three");
}
