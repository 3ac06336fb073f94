//! `stepgraph extract`: what is read out of a file.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};
use stepgraph_nodes::parse::{ParseError, Parsed, declared_type, parse_bytes};

use super::{
    CliError, Ending, Session,
    output::{self, Output},
};
use crate::app::pdf_worker;

/// What `extract` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph extract manual.pdf
  stepgraph extract prices.csv --json

With --json: {\"status\": \"ok\", \"text\": .., \"pages\": ..} and for CSV \"records\", the rows by column name. `status` of a
file that cannot be read is the reason's code (encrypted, corrupt, no_text ..) and `message` says what to do.")]
pub(super) struct ExtractArgs {
    /// A pdf, docx, txt or csv
    file: PathBuf,
}

pub(super) async fn run(args: ExtractArgs, session: &Session) -> Result<Ending, CliError> {
    let bytes = tokio::fs::read(&args.file)
        .await
        .map_err(|source| CliError::Unreadable {
            path: args.file.clone(),
            source,
        })?;
    let parsed = match declared_type(&args.file) {
        Some(declared) => parse_bytes(&pdf_worker()?, declared, bytes).await,
        None => Err(ParseError::UnsupportedType {
            found: found(&args.file),
        }),
    };
    match parsed {
        Ok(parsed) => show(&parsed, session.output),
        Err(error) => refuse(&error, session.output),
    }
}

fn found(file: &std::path::Path) -> String {
    file.extension().map_or_else(
        || "a file without a type".to_owned(),
        |extension| format!("a .{} file", extension.display()),
    )
}

fn show(parsed: &Parsed, output: Output) -> Result<Ending, CliError> {
    if !output.is_json() {
        output.line(parsed.text.trim_end())?;
        return Ok(Ending::Done);
    }
    let mut answer = Map::from_iter([
        ("status".to_owned(), json!("ok")),
        ("text".to_owned(), json!(parsed.text)),
        ("pages".to_owned(), json!(parsed.pages.len().max(1))),
    ]);
    if let Some(table) = &parsed.records {
        let rows: Vec<Value> = table
            .records()
            .map(|row| Value::Object(row.map(|(name, value)| (name.to_owned(), json!(value))).collect()))
            .collect();
        answer.insert("records".to_owned(), Value::Array(rows));
    }
    output.json(&answer)?;
    Ok(Ending::Done)
}

fn refuse(error: &ParseError, output: Output) -> Result<Ending, CliError> {
    if output.is_json() {
        output.json(&json!({ "status": error.code(), "message": error.to_string(), "text": "", "pages": 0 }))?;
    } else {
        output::say(&format!("error: {}: {error}", error.code()));
    }
    Ok(Ending::SomeFailed)
}
