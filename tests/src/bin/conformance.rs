//! Runs a directory of recorded cases on the engine and says which of them it does not repeat.
#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use stepgraph_tests::conformance::{Store, run_directory};

/// Runs recorded cases on the engine.
#[derive(Debug, Parser)]
struct Arguments {
    /// A directory with `cases/*.json` or `*.json`.
    directory: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// One line of JSON for each case.
    #[arg(long)]
    json: bool,
    /// Where threads are kept.
    #[arg(long, value_enum, default_value_t = Kept::Memory)]
    store: Kept,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kept {
    Memory,
    Sqlite,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let store = match arguments.store {
        Kept::Memory => Store::Memory,
        Kept::Sqlite => Store::Sqlite,
    };
    let report = match run_directory(&arguments.directory, &arguments.filter, store).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!(
                "{}: {error}: name a directory of recorded cases",
                arguments.directory.display()
            );
            return ExitCode::from(2);
        }
    };
    for verdict in &report.verdicts {
        if arguments.json {
            println!("{}", verdict.to_json());
        } else if !verdict.differences.is_empty() {
            println!("FAILED {}\n  {}", verdict.name, verdict.differences.join("\n  "));
        }
    }
    let (passed, failed) = report.counts();
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
