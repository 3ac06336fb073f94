//! Measures the engine's workloads beside their floors: `bench [B1 ..] [--json]`.

fn main() -> std::process::ExitCode {
    stepgraph_bench::command::main()
}
