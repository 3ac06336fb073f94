use serde::Serialize;
use stepgraph::Ask;

#[derive(Ask, Serialize)]
#[ask(name = "review")]
struct Review {
    draft: String,
}

fn main() {}
