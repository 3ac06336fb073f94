//! The workloads that keep nothing on disk, in a program that is built in little time: `steps B1 --only engine --calls 20`.

fn main() -> std::process::ExitCode {
    stepgraph_bench::command::main()
}
