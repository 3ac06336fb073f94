//! The command: `[B1 ..] [--json]`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is what it is for"
)]

use std::{
    error::Error,
    path::PathBuf,
    process::{Command, ExitCode},
};

use crate::{Settings, Side, WORKLOADS, Workload, chosen};
use clap::Parser;
use serde_json::Value;

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
    /// One side alone, on one thread and without counts: for a tool that counts instructions.
    #[arg(long, value_parser = side)]
    only: Option<Side>,
    /// How often to do a workload, instead of for half a second five times over; 0 only sets it up.
    #[arg(long)]
    calls: Option<u32>,
}

fn side(name: &str) -> Result<Side, String> {
    match name {
        "engine" => Ok(Side::Engine),
        "floor" => Ok(Side::Floor),
        _ => Err("use engine or floor".to_owned()),
    }
}

/// Does what the arguments of this process say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for workload in WORKLOADS {
            println!("{:<4} {}", workload.name, workload.about);
        }
        return ExitCode::SUCCESS;
    }
    let workloads = match chosen(&arguments.workloads) {
        Ok(workloads) => workloads,
        Err(unknown) => {
            eprintln!("there is no workload `{unknown}`: --list says which there are");
            return ExitCode::from(2);
        }
    };
    match measure(&arguments, &workloads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments, workloads: &[&Workload]) -> Result<(), Box<dyn Error>> {
    let settings = Settings {
        only: arguments.only,
        calls: arguments.calls,
        counter: None,
    };
    let mut runtime = if arguments.only.is_some() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build()?;
    if !arguments.json {
        println!(
            "{:<4} {:<24} {:>12} {:>12} {:>8} {:>8} {:>12}",
            "", "part", "cpu ns/step", "floor", "ratio", "allocs", "bytes"
        );
    }
    let counts = if arguments.only.is_none() {
        Some(counts()?)
    } else {
        None
    };
    for workload in workloads {
        let mut lines = runtime.block_on(workload.run(settings));
        if let Some(counts) = &counts {
            count(counts, workload, &mut lines)?;
        }
        for line in lines {
            if arguments.json {
                println!("{line}");
            } else {
                show(&line);
            }
        }
    }
    Ok(())
}

/// The program that counts, which stands beside this one. Cargo, if it runs this one, builds it anew.
fn counts() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "stepgraph-tests", "--bin", "counts"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if !build.status()?.success() {
            return Err("the program `counts` cannot be built: see above".into());
        }
    }
    let counts = std::env::current_exe()?.with_file_name("counts");
    if counts.exists() {
        return Ok(counts);
    }
    let missing = counts.display();
    Err(format!("{missing} is missing: cargo build --release -p stepgraph-tests --bin counts").into())
}

/// Adds to each line what was counted of the same part.
fn count(counts: &PathBuf, workload: &Workload, lines: &mut [Value]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(counts).arg(workload.name).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("counting {} failed: {said}", workload.name).into());
    }
    let counted: Result<Vec<Value>, _> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let counted = counted?;
    for line in lines {
        let same = |other: &&Value| other["part"] == line["part"];
        let other = counted.iter().find(same).ok_or("a part was not counted")?;
        for name in ["allocs_per_step", "state_clones"] {
            line[name] = other[name].clone();
        }
    }
    Ok(())
}

fn show(line: &Value) {
    let text = |name: &str| match &line[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    println!(
        "{:<4} {:<24} {:>12} {:>12} {:>8} {:>8} {:>12}",
        text("workload"),
        text("part"),
        text("cpu_ns_per_step"),
        text("floor_cpu_ns_per_step"),
        text("ratio"),
        text("allocs_per_step"),
        text("bytes_on_disk"),
    );
}
