//! `stepgraph reindex`: vectors of another embedding model, while those of the present one still answer.

use std::{ops::ControlFlow, sync::Arc};

use clap::Args;
use serde_json::json;
use stepgraph_nodes::service::{
    Embedder, Revector, Transfer, VectorCatalog as _,
    embedded::{Reindex, SqliteVectors},
    qdrant::QdrantVectors,
};

use super::{CliError, Ending, Session, ingest::bar, log::Verbosity, output::say, stop::Stop};
use crate::{
    app::{AppError, DataFolder, caches, document_embedder, open_records, qdrant_options},
    config::{Flags, QdrantSettings, Settings},
};

/// What `reindex` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  EMBEDDING_MODEL=text-embedding-3-large EMBEDDING_DIMENSION=3072 stepgraph reindex
  QDRANT_COLLECTION=documents_large stepgraph reindex --from documents

Call it with the new settings. It may run beside a server that has the old ones and answers by the old vectors; in the
data folder the new ones take their place once that server is stopped and the command is run again, which is short then.
On a Qdrant they fill another collection: run it once more after the old server is stopped, before the new one starts.
Stopped in the middle? Run the same command again: what is embedded is kept.")]
pub(super) struct ReindexArgs {
    /// Collection of the present vectors, where chunks are on a Qdrant
    #[arg(long, value_name = "COLLECTION")]
    from: Option<String>,
}

pub(super) async fn run(args: ReindexArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let embedder = document_embedder(&settings)?;
    match (&settings.qdrant, args.from) {
        (None, None) => in_folder(&settings, embedder, session).await,
        (Some(server), Some(from)) => in_qdrant(&settings, server, from, embedder, session).await,
        (None, Some(_)) => Err(CliError::Usage(
            "--from names a collection, but QDRANT_URL is not set: leave it out".to_owned(),
        )),
        (Some(server), None) => Err(CliError::Usage(format!(
            "chunks are on a Qdrant: name the collection of the present vectors with --from, `{}` is to be filled",
            server.collection
        ))),
    }
}

async fn in_folder(
    settings: &Settings,
    embedder: Option<Arc<dyn Embedder>>,
    session: &Session,
) -> Result<Ending, CliError> {
    let stop = Stop::on_signal()?;
    let held = hold_or_look(settings, "reindex")?;
    let store = SqliteVectors::open(held.folder.vectors()).await?;
    store.check_place().await?;
    let Some(mut work) = Reindex::begin(&store, embedder).await? else {
        return told(
            session,
            "nothing to do: every chunk is embedded with this model",
            0,
            true,
        );
    };
    let tenants = store.tenants().await?;
    let bar = bar(0);
    loop {
        let at = work.progress().await?;
        bar.set_length(at.chunks);
        bar.set_position(at.ready);
        if stop.is_asked() {
            bar.finish_and_clear();
            say("stopped before the end: run the same command again to go on");
            return Ok(Ending::SomeFailed);
        }
        if work.step().await? > 0 {
            continue;
        }
        if let Some(holder) = &held.by_another {
            bar.finish_and_clear();
            let what = format!(
                "the new vectors are ready, and the old ones still answer: {holder} uses the data folder; stop it and run the same command again"
            );
            told(session, &what, at.chunks, false)?;
            return Ok(Ending::SomeFailed);
        }
        if work.finish().await? {
            break;
        }
    }
    bar.finish_and_clear();
    let cache = caches(settings)?;
    for tenant in tenants {
        cache.renew(&tenant).await?;
    }
    let chunks = work.progress().await?.chunks;
    told(session, "the new vectors answer", chunks, true)
}

async fn in_qdrant(
    settings: &Settings,
    server: &QdrantSettings,
    from: String,
    embedder: Option<Arc<dyn Embedder>>,
    session: &Session,
) -> Result<Ending, CliError> {
    if from == server.collection {
        return Err(CliError::Usage(format!(
            "`{from}` is the collection to be filled: name another one by QDRANT_COLLECTION, it is made"
        )));
    }
    let stop = Stop::on_signal()?;
    let options = qdrant_options(settings, server);
    let source = QdrantVectors::open_as_it_is(stepgraph_nodes::service::qdrant::QdrantOptions {
        collection: from,
        ..options.clone()
    });
    let source = source.await?;
    let target = QdrantVectors::open(options).await?;
    let records = open_records(settings).await?;
    let transfer = Transfer {
        from: &source,
        to: &target,
        records: records.documents.as_ref(),
        revector: Revector::Embed(embedder),
    };
    let Some(done) = run_transfer(&transfer, &stop).await? else {
        return Ok(Ending::SomeFailed);
    };
    let what = format!("`{}` holds every chunk with its new vector", server.collection);
    told(session, &what, done, true)
}

/// Runs it under a bar; how many chunks there are then, or nothing where it was told to stop.
pub(super) async fn run_transfer(transfer: &Transfer<'_>, stop: &Stop) -> Result<Option<u64>, CliError> {
    let bar = bar(0);
    bar.set_length(transfer.chunks().await?);
    let watched = |at: stepgraph_nodes::service::Transferred| {
        bar.set_position(at.chunks);
        if stop.is_asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let done = transfer.run(&watched).await;
    bar.finish_and_clear();
    let done = done?;
    if done.is_none() {
        say("stopped before the end: run the same command again to go on");
    }
    Ok(done.map(|done| done.chunks))
}

/// The data folder, and who else uses it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) folder: DataFolder,
    /// What its holder says about itself, if that is not us.
    pub(super) by_another: Option<String>,
}

/// Holds the folder, or looks into it while another process holds it.
pub(super) fn hold_or_look(settings: &Settings, purpose: &str) -> Result<Held, CliError> {
    match DataFolder::hold_known(&settings.data, purpose) {
        Ok(folder) => Ok(Held {
            folder,
            by_another: None,
        }),
        Err(AppError::InUse { holder, .. }) => Ok(Held {
            folder: DataFolder::look(&settings.data)?,
            by_another: Some(holder),
        }),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn told(session: &Session, what: &str, chunks: u64, done: bool) -> Result<Ending, CliError> {
    if session.output.is_json() {
        session
            .output
            .json(&json!({ "done": done, "chunks": chunks, "message": what }))?;
    } else if chunks == 0 {
        session.output.line(what)?;
    } else {
        session.output.line(&format!("{what} ({chunks} chunks)"))?;
    }
    Ok(Ending::Done)
}
