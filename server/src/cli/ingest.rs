//! `stepgraph ingest`: files into a tenant's knowledge base.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, thread};

use clap::Args;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use stepgraph::TenantId;
use stepgraph_nodes::language::Language;

use super::{CliError, Ending, Session, log::Verbosity, output::say, stop::Stop, tenant};
use crate::{
    app::{DataFolder, Graphs, Installation},
    config::Flags,
};

mod bulk;
mod collect;
mod file;
mod language;
mod outcome;

pub(super) use file::{FileIngest, Upload};
pub(super) use outcome::Outcome;
use outcome::Tally;

/// What `ingest` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph ingest ./handbook --tenant acme             every pdf, docx, txt and csv in the folder and below
  stepgraph ingest price-list.csv --tenant acme --id prices
  stepgraph ingest articles.jsonl --tenant acme --language es

A document is named by its file's stem (handbook/warranty.pdf becomes `warranty`), by the whole name where two files
share the stem. The same id again replaces the document. A .jsonl file holds many documents, one {\"id\", \"title\", \"text\"}
a line, and is taken only when named itself.
Stopped in the middle? Run the same command again: what is finished and unchanged is passed over.")]
pub(super) struct IngestArgs {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Whose documents they are
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// Name of the document, for a single file [default: the file's stem]
    #[arg(long)]
    id: Option<String>,
    /// Language of the knowledge base, as en or pt; fixed at the first ingest [default: the tenant's, else told from the text]
    #[arg(long, value_name = "CODE", value_parser = Language::parse)]
    language: Option<Language>,
}

pub(super) async fn run(args: IngestArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let inputs = collect::collect(&args.paths, args.id.as_deref())?;
    let folder = DataFolder::hold_known(&settings.data, "ingest")?;
    let installation = Installation::open(folder, &settings).await?;
    let tenant = tenant::known(&args.tenant, &installation).await?;
    match args.language {
        Some(language) => language::fix(&installation, &tenant, language).await?,
        None => language::choose(&installation, &tenant, &inputs.files).await?,
    }
    let stop = Stop::on_signal()?;
    let mut tally = Tally::new(inputs.left_out);
    let ended = ingest(&installation, &tenant, inputs, &stop, &mut tally).await;
    // What went in before a failure is in, and is told.
    if ended.is_ok() || !tally.is_empty() {
        tally.show(session.output)?;
    }
    ended?;
    if stop.is_asked() {
        say("stopped before the end: run the same command again to go on");
        return Ok(Ending::SomeFailed);
    }
    Ok(if tally.has_failures() {
        Ending::SomeFailed
    } else {
        Ending::Done
    })
}

async fn ingest(
    installation: &Installation,
    tenant: &TenantId,
    inputs: collect::Inputs,
    stop: &Stop,
    tally: &mut Tally,
) -> Result<(), CliError> {
    let bar = bar(inputs.files.len());
    let at_once = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let graphs = Graphs::open(installation).await?;
    let files = Arc::new(FileIngest::new(installation, Arc::new(graphs.ingest), tenant.clone()));
    let rows = stream::iter(inputs.files)
        .take_until(stop.token().clone().cancelled_owned())
        .map(|input| {
            let (files, bar, stop) = (Arc::clone(&files), bar.clone(), stop.token().clone());
            async move {
                bar.set_message(input.path.display().to_string());
                let row = files.ingest(input, stop).await;
                bar.inc(1);
                row
            }
        })
        .buffer_unordered(at_once);
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.next().await {
        if let Some(row) = row? {
            tally.add(row);
        }
    }
    bar.finish_and_clear();
    for path in inputs.bulk {
        if !stop.is_asked() {
            bulk::ingest(installation, tenant, &path, stop, tally).await?;
        }
    }
    Ok(())
}

/// A bar on standard error; nothing at all where that is not a terminal.
pub(super) fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
