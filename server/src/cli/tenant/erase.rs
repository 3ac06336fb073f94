//! `stepgraph tenant erase`: nothing of a tenant is left.

use clap::Args;
use serde_json::json;
use stepgraph_nodes::service::Erased;

use super::{WriteFlag, unknown};
use crate::{
    app::{DataFolder, Graphs, Installation},
    cli::{CliError, Ending, Session, log::Verbosity, output::Style},
    config::Flags,
    jobs::SqliteDispatch,
};

/// What `tenant erase` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant erase acme          says what would be deleted
  stepgraph tenant erase acme --yes    deletes it

Stop the server first: what it has under way for the tenant would come back. Where several share a database, stop them all, and
erase in the data folder of each: jobs lie there. Take an export before, if you want one.")]
pub(in crate::cli) struct EraseArgs {
    /// Name of the tenant
    id: String,
    /// Delete it, for good
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    writes: WriteFlag,
}

pub(super) async fn run(args: EraseArgs, session: &Session) -> Result<Ending, CliError> {
    let mut settings = session.settings(Flags::default(), Verbosity::Command)?;
    settings.client_writes = args.writes.writes();
    let folder = DataFolder::hold_known(&settings.data, "tenant erase")?;
    let installation = Installation::open(folder, &settings).await?;
    let client = installation.records.clients.by_id(&args.id).await?;
    let tenant = client.ok_or_else(|| unknown(&args.id, &settings))?.tenant;
    let mut tables = installation.records.data.rows(&tenant).await?;
    let chunks = installation.vectors.count(&tenant).await?;
    let queue = SqliteDispatch::open(installation.database.clone()).await?;
    let jobs = queue.of_tenant(&tenant).await?;
    if args.yes {
        // The tenant's own record goes last: what fails on the way can be done again.
        let graphs = Graphs::open(&installation).await?;
        graphs.erase_threads(&tenant).await?;
        queue.erase(&tenant).await?;
        installation.vectors.erase(&tenant).await?;
        // Behind the chunks, whose deletion begins a new generation.
        installation.cache.erase(&tenant).await?;
        tables = installation.records.data.erase(&tenant).await?;
        installation.folder.write_back().await?;
    }
    for (table, rows) in [("jobs", jobs), ("chunks", chunks)] {
        tables.push(Erased { table, rows });
    }
    tell(&tables, &args, session)?;
    if args.yes {
        return Ok(Ending::Done);
    }
    Err(CliError::Usage(format!(
        "nothing is deleted yet: say `stepgraph tenant erase {} --yes`",
        args.id
    )))
}

fn tell(tables: &[Erased], args: &EraseArgs, session: &Session) -> Result<(), CliError> {
    if session.output.is_json() {
        return session
            .output
            .json(&json!({ "tenant": args.id, "erased": args.yes, "rows": tables }));
    }
    let rows: Vec<_> = tables
        .iter()
        .map(|table| {
            vec![
                (Style::Plain, table.table.to_owned()),
                (Style::Plain, table.rows.to_string()),
            ]
        })
        .collect();
    let head = if args.yes { "rows deleted" } else { "rows" };
    session.output.table(&["table", head], &rows)
}
