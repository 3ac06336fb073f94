use stepgraph::View;

#[derive(View)]
struct Query {
    question: String,
}

fn main() {}
