use stepgraph::Route;

#[derive(Route, Clone, Copy)]
struct Found;

fn main() {}
