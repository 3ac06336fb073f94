//! Makes the exported threads that the tests import: `fixtures DIRECTORY`.

#![expect(clippy::print_stderr, reason = "a program says why it fails")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Makes the exported threads that the tests import.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where they go, over whatever is there.
    directory: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match stepgraph_tests::fixtures::make(&arguments.directory).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "{}: {error}: name a directory that is there",
                arguments.directory.display()
            );
            ExitCode::from(1)
        }
    }
}
