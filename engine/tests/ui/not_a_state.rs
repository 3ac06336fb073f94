use stepgraph::Graph;

struct Plain;

fn main() {
    let _ = Graph::<Plain>::builder("plain");
}
