//! `stepgraph migrate`: the tables of records brought up to date.

use clap::Args;
use serde_json::json;
use stepgraph_nodes::service::{embedded::SqliteRecords, postgres::PostgresRecords};

use super::{
    CliError, Ending, Session,
    log::Verbosity,
    output::{Style, say},
};
use crate::{
    app::{DataFolder, open_database, open_records},
    config::{Flags, Settings},
};

/// What `migrate` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph migrate --check     shows which migrations the database has and which it will get
  stepgraph migrate             applies them

Every command that opens the database applies them too; this one is for those who want to see them before. A database
that a newer program has changed is refused. Of a shared database only tables of ours are changed.")]
pub(super) struct MigrateArgs {
    /// Show them and change nothing
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(args: MigrateArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let before = migrations(&settings).await?;
    if !args.check {
        open_records(&settings).await?;
    }
    let mut rows = Vec::new();
    for (version, what, is_applied) in &before {
        let state = match (is_applied, args.check) {
            (true, _) => "there",
            (false, true) => "to come",
            (false, false) => "applied now",
        };
        if session.output.is_json() {
            session
                .output
                .json(&json!({ "version": version, "description": what, "state": state }))?;
        }
        let cells = [version.to_string(), what.clone(), state.to_owned()];
        rows.push(cells.map(|cell| (Style::Plain, cell)).to_vec());
    }
    if !session.output.is_json() {
        session.output.table(&["version", "what", "state"], &rows)?;
        let new = before.iter().filter(|(.., is_applied)| !is_applied).count();
        if new > 0 && args.check {
            say(&format!("{new} to come: `stepgraph migrate` applies them"));
        }
    }
    Ok(Ending::Done)
}

async fn migrations(settings: &Settings) -> Result<Vec<(i64, String, bool)>, CliError> {
    if let Some(url) = &settings.database {
        return Ok(PostgresRecords::migrations(url).await?);
    }
    let folder = DataFolder::look(&settings.data)?;
    let database = open_database(&folder.records()).await?;
    Ok(SqliteRecords::migrations(&database).await?)
}
