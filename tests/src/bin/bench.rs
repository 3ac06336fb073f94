//! Measures the engine's workloads beside their floors: `bench [B1 ..] [--json]`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is what it is for"
)]

use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;
use stepgraph_tests::bench::WORKLOADS;

/// Measures the engine's workloads, each beside the least that the same work can cost. Build it with --release.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which workloads; all unless named.
    workloads: Vec<String>,
    /// One line of JSON for each part of a workload instead of a table.
    #[arg(long)]
    json: bool,
    /// Says which workloads there are.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for workload in WORKLOADS {
            println!("{:<4} {}", workload.name, workload.about);
        }
        return ExitCode::SUCCESS;
    }
    let unknown = |name: &&String| !WORKLOADS.iter().any(|workload| workload.name == **name);
    if let Some(name) = arguments.workloads.iter().find(unknown) {
        eprintln!("there is no workload `{name}`: --list says which there are");
        return ExitCode::from(2);
    }
    if !arguments.json {
        println!(
            "{:<4} {:<24} {:>12} {:>12} {:>8} {:>12}",
            "", "part", "cpu ns/step", "floor", "ratio", "bytes"
        );
    }
    for workload in WORKLOADS {
        if !arguments.workloads.is_empty() && !arguments.workloads.iter().any(|name| name == workload.name) {
            continue;
        }
        for line in workload.run().await {
            if arguments.json {
                println!("{line}");
            } else {
                show(&line);
            }
        }
    }
    ExitCode::SUCCESS
}

fn show(line: &Value) {
    let text = |name: &str| match &line[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    println!(
        "{:<4} {:<24} {:>12} {:>12} {:>8} {:>12}",
        text("workload"),
        text("part"),
        text("cpu_ns_per_step"),
        text("floor_cpu_ns_per_step"),
        text("ratio"),
        text("bytes_on_disk"),
    );
}
