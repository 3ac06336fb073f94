use stepgraph::Route;

#[derive(Route, Clone, Copy)]
enum Found {
    Some(u32),
    Nothing { tries: u32 },
}

fn main() {}
