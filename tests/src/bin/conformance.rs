//! Runs a directory of recorded cases on the engine and says which of them it does not repeat.
#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use stepgraph::Durability;
use stepgraph_tests::conformance::{Ground, Store, run_directory};

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
    /// When the steps of runs are durable. With `exit`, history, the number of checkpoints and the events of checkpoints are
    /// not compared, and cases that go back to a checkpoint by its number, or edit as whichever node ran last, are left out:
    /// between a run's first and last checkpoint none is written.
    #[arg(long, value_enum, default_value_t = When::Sync)]
    durability: When,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum When {
    Sync,
    Async,
    Exit,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kept {
    Memory,
    Sqlite,
    Postgres,
    Redis,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let store = match arguments.store {
        Kept::Memory => Store::Memory,
        Kept::Sqlite => Store::Sqlite,
        Kept::Postgres => Store::Postgres,
        Kept::Redis => Store::Redis,
    };
    let durability = match arguments.durability {
        When::Sync => Durability::Sync,
        When::Async => Durability::Async,
        When::Exit => Durability::Exit,
    };
    let ground = Ground { store, durability };
    let report = match run_directory(&arguments.directory, &arguments.filter, ground).await {
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
    if !report.left_out.is_empty() && !arguments.json {
        println!("left out: {}", report.left_out.join(", "));
    }
    let (passed, failed) = report.counts();
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
