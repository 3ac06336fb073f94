//! The `stepgraph` binary: a thin shell around [`stepgraph_server::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use stepgraph_nodes::{parse::run_worker_if_asked, service::tls};
use stepgraph_server::cli::{self, Cli};

fn main() -> ExitCode {
    // First of all: the PDF worker is this same binary, and must come by nothing but its standard input.
    run_worker_if_asked();
    tls::install();
    cli::run(Cli::parse())
}
