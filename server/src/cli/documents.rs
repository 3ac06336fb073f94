//! `stepgraph documents`: what a tenant's knowledge base is made of.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use stepgraph_nodes::service::{Document, DocumentId, DocumentStatus, Staged};

use super::{
    CliError, Ending, Session,
    ingest::{FileIngest, Outcome, Upload},
    log::Verbosity,
    output::{Style, say},
    stop::Stop,
    tenant,
};
use crate::{
    app::{DataFolder, Graphs, Installation},
    config::{Flags, Settings},
};

/// Documents read at once.
const PAGE: u32 = 200;

/// What `documents` can do.
#[derive(Debug, Subcommand)]
pub(super) enum DocumentsCommand {
    /// List a tenant's documents, newest first
    List(ListArgs),
    /// Delete a document; it is gone from answers at once
    Delete(OneArgs),
    /// Go on with a document that was accepted and not finished
    Retry(OneArgs),
}

/// Whose documents.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph documents list --tenant acme
  stepgraph documents list --tenant acme --json")]
pub(super) struct ListArgs {
    /// Name of the tenant
    #[arg(long)]
    tenant: String,
}

/// Which document.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph documents delete manual --tenant acme
  stepgraph documents retry manual --tenant acme

Both need the data folder for themselves: beside a running server use its routes. The file of a document that has
failed is not kept: ingest it again.")]
pub(super) struct OneArgs {
    /// Id of the document
    id: String,
    /// Name of the tenant
    #[arg(long)]
    tenant: String,
}

pub(super) async fn run(command: DocumentsCommand, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    match command {
        DocumentsCommand::List(args) => list(&args, &settings, session).await,
        DocumentsCommand::Delete(args) => delete(&args, &settings, session).await,
        DocumentsCommand::Retry(args) => retry(&args, &settings, session).await,
    }
}

fn status(document: &Document) -> (Style, String) {
    match document.status {
        DocumentStatus::Completed => (Style::Good, "completed".to_owned()),
        DocumentStatus::Failed => {
            let code = document.error_code.as_deref().unwrap_or("unknown");
            (Style::Bad, format!("failed ({code})"))
        }
        DocumentStatus::Pending
        | DocumentStatus::Parsing
        | DocumentStatus::Chunking
        | DocumentStatus::Embedding
        | DocumentStatus::Storing => (Style::Plain, format!("{} %", document.progress)),
    }
}

async fn list(args: &ListArgs, settings: &Settings, session: &Session) -> Result<Ending, CliError> {
    let installation = Installation::open(DataFolder::look(&settings.data)?, settings).await?;
    let tenant = tenant::known(&args.tenant, &installation).await?;
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let documents = &installation.records.documents;
        let page = documents.list(&tenant, PAGE, cursor.as_deref()).await?;
        for document in page.documents {
            if session.output.is_json() {
                session.output.json(&json!({
                    "id": document.id.as_str(), "originalName": document.original_name,
                    "fileType": document.file_type, "status": document.status, "progress": document.progress,
                    "chunksTotal": document.chunks_total, "errorCode": document.error_code,
                    "createdAt": document.created_at,
                }))?;
                continue;
            }
            let chunks = document.chunks_total.map(|chunks| chunks.to_string());
            rows.push(vec![
                (Style::Plain, document.id.to_string()),
                status(&document),
                (Style::Plain, chunks.unwrap_or_default()),
                (Style::Plain, document.original_name),
            ]);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if !session.output.is_json() {
        session.output.table(&["document", "status", "chunks", "file"], &rows)?;
    }
    Ok(Ending::Done)
}

fn unknown(args: &OneArgs) -> CliError {
    CliError::NoDocument {
        tenant: args.tenant.clone(),
        document: args.id.clone(),
    }
}

async fn delete(args: &OneArgs, settings: &Settings, session: &Session) -> Result<Ending, CliError> {
    let folder = DataFolder::hold_known(&settings.data, "documents delete")?;
    let installation = Installation::open(folder, settings).await?;
    let tenant = tenant::known(&args.tenant, &installation).await?;
    let id = DocumentId::new(&args.id);
    let existed = installation.records.documents.delete(&tenant, &id).await?;
    let points = installation.vectors.delete(&tenant, &id).await?;
    if !existed && points == 0 {
        return Err(unknown(args));
    }
    if session.output.is_json() {
        session
            .output
            .json(&json!({ "document": args.id, "pointsDeleted": points }))?;
    } else {
        say(&format!("document `{}` is deleted, with {points} chunks", args.id));
    }
    Ok(Ending::Done)
}

async fn retry(args: &OneArgs, settings: &Settings, session: &Session) -> Result<Ending, CliError> {
    let folder = DataFolder::hold_known(&settings.data, "documents retry")?;
    let installation = Installation::open(folder, settings).await?;
    let tenant = tenant::known(&args.tenant, &installation).await?;
    let (documents, id) = (installation.records.documents.clone(), DocumentId::new(&args.id));
    let document = documents.get(&tenant, &id).await?.ok_or_else(|| unknown(args))?;
    let file = documents.staged(&tenant, &id, document.version, Staged::File).await?;
    let Some(bytes) = file else {
        return Err(CliError::Usage(format!(
            "the file of `{}` is not kept any more: ingest it again",
            args.id
        )));
    };
    let stop = Stop::on_signal()?;
    let graphs = Graphs::open(&installation).await?;
    let files = FileIngest::new(&installation, Arc::new(graphs.ingest), tenant);
    let upload = Upload {
        id: &id,
        name: &document.original_name,
        file_type: document.file_type,
        bytes,
    };
    let outcome = files.store(upload, stop.token()).await?;
    let (told, ending) = match outcome {
        Some(Outcome::Stored { chunks } | Outcome::Unchanged { chunks }) => {
            (format!("completed, {chunks} chunks"), Ending::Done)
        }
        Some(Outcome::WithoutText) => ("completed, without text".to_owned(), Ending::Done),
        Some(Outcome::Failed { code, message }) => (format!("failed: {code}: {message}"), Ending::SomeFailed),
        None => ("stopped before the end".to_owned(), Ending::SomeFailed),
    };
    if session.output.is_json() {
        session.output.json(&json!({ "document": args.id, "outcome": told }))?;
    } else {
        session.output.line(&format!("{}: {told}", args.id))?;
    }
    Ok(ending)
}
