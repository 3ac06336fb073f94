//! The command line: what can be called, and with which words it is explained.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::AppError,
    config::{Flags, Settings},
};

mod backup;
mod chat;
mod demo;
mod doctor;
mod documents;
mod error;
mod extract;
mod graph;
mod ingest;
mod jsonl;
mod knowledge;
mod listen;
mod log;
mod migrate;
mod output;
mod reindex;
mod search;
mod serve;
mod stop;
mod tenant;
mod threads;
mod vectors;

pub use error::CliError;
use log::Verbosity;
use output::{Form, Output, complain};

/// Answers questions from your documents, with their sources.
///
/// One program: a server for a chat widget, and the commands to feed it and to look into it. Without any setting it
/// needs no key and no other server; everything it keeps lies in one data folder.
#[derive(Debug, Parser)]
#[command(name = "stepgraph", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  stepgraph demo                                  try it, on sample documents, in the browser
  stepgraph tenant add acme                       make a tenant of your own and print its key
  stepgraph ingest ./handbook --tenant acme       read your documents
  stepgraph chat --tenant acme \"how long is the warranty?\"
  stepgraph serve                                 serve all tenants over HTTP

Settings come from flags, then the environment, then stepgraph.toml in the data folder; .env.example lists them.
Exit codes: 0 all is well, 1 something failed, 2 the command was called wrongly.";

/// What every command takes.
#[derive(Debug, Args)]
struct Common {
    /// Folder of the databases [default: ./stepgraph-data, or `STEPGRAPH_DATA`]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    data: Option<PathBuf>,
    /// Settings file [default: stepgraph.toml in the data folder, where there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    config: Option<PathBuf>,
    /// Print data as JSON, one value a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: sample documents, a chat page and lines to paste
    Demo(demo::DemoArgs),
    /// Serve all tenants over HTTP
    Serve(serve::ServeArgs),
    /// Make tenants, change how they are served, take out or erase what is kept of them
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Read documents into a tenant's knowledge base
    Ingest(ingest::IngestArgs),
    /// List, delete or go on with documents
    #[command(subcommand)]
    Documents(documents::DocumentsCommand),
    /// Embed all documents anew, after a change of the embedding model
    Reindex(reindex::ReindexArgs),
    /// Move chunks to a server
    #[command(subcommand)]
    Vectors(vectors::VectorsCommand),
    /// Seal the threads that were kept before there was a key
    #[command(subcommand)]
    Threads(threads::ThreadsCommand),
    /// Ask one question on the terminal
    Chat(chat::ChatArgs),
    /// Answer many search queries, to measure how good the search is
    Search(search::SearchArgs),
    /// Show the text that is read out of a file
    Extract(extract::ExtractArgs),
    /// Look at the graphs
    #[command(subcommand)]
    Graph(graph::GraphCommand),
    /// Bring the tables of records up to date
    Migrate(migrate::MigrateArgs),
    /// Copy the data folder
    Backup(backup::BackupArgs),
    /// Bring a copy back
    Restore(backup::RestoreArgs),
    /// Find out what would not work, and what to do about it
    Doctor(doctor::DoctorArgs),
}

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// All is well.
    Done,
    /// It went to its end, and the output says what failed.
    SomeFailed,
}

/// What a command is given.
#[derive(Debug)]
struct Session {
    flags: Flags,
    output: Output,
}

impl Session {
    /// Reads the settings, `more` being the command's own flags, and starts logging as they say.
    fn settings(&self, more: Flags, verbosity: Verbosity) -> Result<Settings, CliError> {
        let flags = Flags {
            data: self.flags.data.clone(),
            config: self.flags.config.clone(),
            ..more
        };
        // A variable that is not Unicode cannot be one of ours.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let settings = Settings::load(&flags, environment).map_err(AppError::from)?;
        log::start(verbosity, settings.log_filter.as_deref(), settings.log_format);
        Ok(settings)
    }
}

/// Runs the command and says on standard error why it failed, if it did.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let form = if cli.common.json { Form::Json } else { Form::Text };
    match run_to_end(cli, form) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::SomeFailed) => ExitCode::FAILURE,
        Err(error) => {
            if !error.is_silent() {
                complain(&error, form);
            }
            error.exit_code()
        }
    }
}

fn run_to_end(cli: Cli, form: Form) -> Result<Ending, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::System {
        what: "a thread for the work",
        source,
    })?;
    let flags = Flags {
        data: cli.common.data,
        config: cli.common.config,
        ..Flags::default()
    };
    let session = Session {
        flags,
        output: Output::new(form),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args, &session).await,
            Command::Serve(args) => serve::run(args, &session).await,
            Command::Tenant(command) => tenant::run(command, &session).await,
            Command::Ingest(args) => ingest::run(args, &session).await,
            Command::Documents(command) => documents::run(command, &session).await,
            Command::Reindex(args) => reindex::run(args, &session).await,
            Command::Vectors(command) => vectors::run(command, &session).await,
            Command::Threads(command) => threads::run(command, &session).await,
            Command::Migrate(args) => migrate::run(args, &session).await,
            Command::Backup(args) => backup::backup(args, &session).await,
            Command::Restore(args) => backup::restore(args, &session).await,
            Command::Chat(args) => chat::run(args, &session).await,
            Command::Search(args) => search::run(args, &session).await,
            Command::Extract(args) => extract::run(args, &session).await,
            Command::Graph(command) => graph::run(&command, &session),
            Command::Doctor(args) => doctor::run(args, &session).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_tree_holds_together() {
        Cli::command().debug_assert();
    }
}
