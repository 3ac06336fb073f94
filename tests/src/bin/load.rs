//! Puts load on the whole server: `load chat [--json]`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is what it is for"
)]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use serde_json::{Map, Value};
use stepgraph_tests::{
    TestError,
    load::{self, Load},
};

/// Puts load on a server of its own, on embedded defaults and a model that takes no time. Build it with --release.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks one after another, beside many open streams, and in a crowd.
    Chat {
        /// Chunks of the tenant that asks.
        #[arg(long, default_value_t = 100_000)]
        chunks: u32,
        /// Streams that are open at once.
        #[arg(long, default_value_t = 1_000)]
        streams: usize,
        /// Words that each stream says.
        #[arg(long, default_value_t = 20)]
        drops: usize,
        /// Milliseconds between two of them.
        #[arg(long, default_value_t = 500)]
        drop_ms: u64,
        /// Questions asked one after another.
        #[arg(long, default_value_t = 300)]
        alone: u64,
        /// Questions asked in a crowd.
        #[arg(long, default_value_t = 2_000)]
        crowd: u64,
        /// One line of JSON for each part instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// The server that the load is put on.
    #[command(hide = true)]
    Serve { folder: PathBuf },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { folder } => load::serve(&folder),
        Command::Chat {
            chunks,
            streams,
            drops,
            drop_ms,
            alone,
            crowd,
            json,
        } => {
            let load = Load {
                chunks,
                streams,
                drops,
                drop_every: Duration::from_millis(drop_ms),
                alone,
                crowd,
            };
            match chat(load, json) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn chat(load: Load, json: bool) -> Result<(), TestError> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lines = runtime.block_on(load::chat(load, folder.path(), |step| eprintln!("{step}")))?;
    if !json {
        println!(
            "{:<22} {:>8} {:>9} {:>9} {:>9} {:>10} {:>6} {:>10} {:>14}",
            "", "answers", "p50 ms", "p95 ms", "p99 ms", "per second", "lost", "reordered", "MB above idle"
        );
    }
    for line in lines {
        if json {
            println!("{}", Value::from(line));
        } else {
            show(&line);
        }
    }
    Ok(())
}

fn show(line: &Map<String, Value>) {
    let text = |name: &str| match line.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    println!(
        "{:<22} {:>8} {:>9} {:>9} {:>9} {:>10} {:>6} {:>10} {:>14}",
        text("part"),
        text("answers"),
        text("p50_ms"),
        text("p95_ms"),
        text("p99_ms"),
        text("answers_per_second"),
        text("lost"),
        text("reordered"),
        text("above_idle_mb"),
    );
}
