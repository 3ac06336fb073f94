//! Counts what the engine's workloads do, where `bench` takes their time: `counts [B1 ..]` prints one line of JSON for each
//! part. A program of its own, since an allocator that counts would have its share in every time that is measured.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is what it is for"
)]

use std::process::ExitCode;

use stepgraph_bench::{Settings, chosen};

#[tokio::main]
async fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let settings = Settings {
        counter: Some(|work| allocation_counter::measure(work).count_total),
        ..Settings::default()
    };
    let workloads = match chosen(&names) {
        Ok(workloads) => workloads,
        Err(unknown) => {
            eprintln!("there is no workload `{unknown}`: `bench --list` says which there are");
            return ExitCode::from(2);
        }
    };
    for workload in workloads {
        for line in workload.run(settings).await {
            println!("{line}");
        }
    }
    ExitCode::SUCCESS
}
