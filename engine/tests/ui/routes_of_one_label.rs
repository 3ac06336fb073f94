use stepgraph::Route;

#[derive(Route, Clone, Copy)]
enum Verdict {
    TryAgain,
    Try_Again,
}

fn main() {}
