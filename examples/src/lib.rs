//! One idea a file: see `examples/`. Run one by `cargo run -p stepgraph-examples --example hello`.
