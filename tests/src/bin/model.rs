//! Runs random graphs on the engine and on a model of it, and says where they part.
#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::process::ExitCode;

use clap::Parser;
use stepgraph_tests::model::{keep_seed, run_seeds, tell_seed};

/// Runs random graphs on the engine and on the model.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One seed alone, told in full.
    #[arg(long)]
    seed: Option<u64>,
    /// On so many threads; as many as the machine has cores otherwise.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic is its seed's failure and told there.
    std::panic::set_hook(Box::new(|_| {}));
    let failures = if let Some(seed) = arguments.seed {
        let (text, ended) = tell_seed(seed);
        println!("{text}");
        ended.err().into_iter().collect()
    } else {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let seeds: Vec<u64> = (arguments.from..arguments.from.saturating_add(arguments.seeds)).collect();
        run_seeds(&seeds, arguments.threads.unwrap_or(cores))
    };
    for failure in &failures {
        println!("FAILED {}", failure.what);
        if let Err(error) = keep_seed(failure.seed) {
            eprintln!("seed {} could not be kept: {error}", failure.seed);
        }
    }
    let run = if arguments.seed.is_some() { 1 } else { arguments.seeds };
    let failed = failures.len() as u64;
    println!("{} passed, {failed} failed", run.saturating_sub(failed));
    ExitCode::from(u8::from(failed > 0))
}
