//! `stepgraph tenant export`: all rows of a tenant.

use stepgraph_nodes::service::postgres::ClientWrites;

use super::{found, open};
use crate::cli::{CliError, Ending, Session, output::say};

/// Rows read at once.
const PAGE: u32 = 200;

pub(super) async fn run(id: &str, session: &Session) -> Result<Ending, CliError> {
    let (settings, records) = open(session, ClientWrites::Refused).await?;
    let tenant = found(id, &settings, &records).await?.tenant;
    let mut rows = 0_u64;
    for table in records.data.tables() {
        let mut after = None;
        loop {
            let page = records.data.export(&tenant, table, after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.cursor.clone());
            for row in &page {
                session.output.json(row)?;
                rows = rows.saturating_add(1);
            }
        }
    }
    say(&format!("{rows} rows of `{tenant}`"));
    Ok(Ending::Done)
}
