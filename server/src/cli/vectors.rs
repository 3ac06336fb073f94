//! `stepgraph vectors`: where chunks are.

use clap::{Args, Subcommand, ValueEnum};
use stepgraph_nodes::service::{Revector, Transfer, embedded::SqliteVectors, qdrant::QdrantVectors};

use super::{
    CliError, Ending, Session,
    log::Verbosity,
    reindex::{hold_or_look, run_transfer, told},
    stop::Stop,
};
use crate::{
    app::{document_embedder, embedding, open_records, qdrant_options},
    config::{Flags, variable},
};

/// What `vectors` can do.
#[derive(Debug, Subcommand)]
pub(super) enum VectorsCommand {
    /// Move the chunks of all tenants from the data folder to a server
    Move(MoveArgs),
}

/// Where chunks can be moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// The Qdrant that `QDRANT_URL` names.
    Qdrant,
}

/// What `vectors move` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  QDRANT_URL=http://localhost:6334 stepgraph vectors move --to qdrant

Beside a running server the chunks are copied while it goes on answering; stop it and run the command again, which brings
what has changed, checks the counts and takes the chunks out of the data folder. Take a backup first. Then start the server
with QDRANT_URL. Stopped in the middle? Run the same command again: what has arrived is kept.")]
pub(super) struct MoveArgs {
    /// Where to
    #[arg(long, value_enum)]
    to: Place,
    /// Embed all chunks anew on the way, by the model of the settings
    #[arg(long)]
    embed: bool,
}

pub(super) async fn run(command: VectorsCommand, session: &Session) -> Result<Ending, CliError> {
    match command {
        VectorsCommand::Move(args) => match args.to {
            Place::Qdrant => move_to_qdrant(&args, session).await,
        },
    }
}

async fn move_to_qdrant(args: &MoveArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let server = settings.qdrant.as_ref().ok_or_else(|| {
        CliError::Usage(format!(
            "there is no Qdrant in the settings: set {}",
            variable::QDRANT_URL
        ))
    })?;
    let held = hold_or_look(&settings, "vectors move")?;
    let stop = Stop::on_signal()?;
    let source = SqliteVectors::open(held.folder.vectors()).await?;
    source.check_place().await?;
    let revector = if args.embed {
        Revector::Embed(document_embedder(&settings)?)
    } else {
        source.check(embedding(&settings).as_ref()).await?;
        Revector::Keep
    };
    let target = QdrantVectors::open(qdrant_options(&settings, server)).await?;
    let records = open_records(&settings).await?;
    let transfer = Transfer {
        from: &source,
        to: &target,
        records: records.documents.as_ref(),
        revector,
    };
    let Some(chunks) = run_transfer(&transfer, &stop).await? else {
        return Ok(Ending::SomeFailed);
    };
    if let Some(holder) = &held.by_another {
        let what = format!(
            "the chunks are copied, and those of the data folder still answer: {holder} uses it; stop it and run the same command again"
        );
        told(session, &what, chunks, false)?;
        return Ok(Ending::SomeFailed);
    }
    let place = format!("the collection `{}` of a Qdrant", server.collection);
    source.moved_to(&place).await?;
    told(session, &format!("all chunks are in {place} now"), chunks, true)
}
