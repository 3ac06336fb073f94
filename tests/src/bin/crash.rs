//! The crash matrix: kills a process at every named point, on every store and in every durability, and goes on.
#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use stepgraph::Durability;
use stepgraph_tests::{
    TestError,
    crash::{Fate, Matrix, Orders, Place, child, matrix},
};

/// Kills a process at every named point, on every store and in every durability, and goes on.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    /// How often to go through the grid: once as in the tests, then with random deaths.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Where the random rounds begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these stores: sqlite, postgres, redis.
    #[arg(long, value_delimiter = ',')]
    store: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The process that dies; started by the matrix.
    #[command(hide = true)]
    Child(ChildArguments),
}

#[derive(Debug, clap::Args)]
struct ChildArguments {
    #[arg(long)]
    store: String,
    #[arg(long)]
    address: String,
    #[arg(long)]
    thread: String,
    #[arg(long)]
    durability: When,
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long)]
    die: Option<String>,
    #[arg(long, default_value_t = 1)]
    nth: u32,
    #[arg(long, default_value_t = 1)]
    pauses: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum When {
    Sync,
    Async,
    Exit,
}

fn place(name: &str) -> Result<Place, TestError> {
    Place::named(name).ok_or_else(|| format!("no store `{name}`: use sqlite, postgres, redis").into())
}

impl ChildArguments {
    fn orders(self) -> Result<Orders, TestError> {
        Ok(Orders {
            place: place(&self.store)?,
            address: self.address,
            thread: self.thread,
            durability: match self.durability {
                When::Sync => Durability::Sync,
                When::Async => Durability::Async,
                When::Exit => Durability::Exit,
            },
            ledger: self.ledger,
            fate: Fate {
                point: self.die,
                nth: self.nth,
                pauses: self.pauses,
            },
        })
    }
}

async fn run(arguments: Arguments) -> Result<bool, TestError> {
    if let Some(Role::Child(orders)) = arguments.command {
        child(orders.orders()?).await?;
        return Ok(true);
    }
    let places = arguments
        .store
        .iter()
        .map(|name| place(name))
        .collect::<Result<Vec<_>, _>>()?;
    let report = matrix(&Matrix {
        program: std::env::current_exe()?,
        places: if places.is_empty() { Place::ALL.to_vec() } else { places },
        rounds: arguments.rounds,
        seed: arguments.seed,
    })
    .await?;
    println!("{report}");
    Ok(report.passed())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
