//! Changing the inverted index: entries added behind those that are there, or taken out of their rows.

use std::collections::{BTreeMap, HashMap};

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{ROWS_PER_STATEMENT, Tenant, database, json, postings};
use crate::service::ServiceError;

/// What changes in one row of the index.
#[derive(Default)]
pub(super) struct Edit {
    /// Slots that lose their entry.
    pub(super) removed: Vec<u16>,
    /// Packed entries that are new.
    pub(super) added: Vec<u8>,
}

/// Rows of the index that change, by term and block.
pub(super) type Edits = BTreeMap<(String, u32), Edit>;

/// Writes the index. Where chunks are only added, their entries go behind those that are there: chunk ids grow.
pub(super) async fn write(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    edits: Edits,
) -> Result<(), ServiceError> {
    let (thinned, grown): (Edits, Edits) = edits.into_iter().partition(|(_, edit)| !edit.removed.is_empty());
    let mut by_block: BTreeMap<u32, Vec<(String, Edit)>> = BTreeMap::new();
    for ((term, block), edit) in thinned {
        by_block.entry(block).or_default().push((term, edit));
    }
    for (block, edits) in by_block {
        thin(transaction, tenant, block, edits).await?;
    }
    let grown: Vec<(String, u32, Vec<u8>)> = grown
        .into_iter()
        .map(|((term, block), edit)| (term, block, edit.added))
        .collect();
    for rows in grown.chunks(ROWS_PER_STATEMENT) {
        // `||` makes text of blobs, byte for byte.
        let end = " ON CONFLICT DO UPDATE SET entries = CAST(entries || excluded.entries AS BLOB)";
        upsert(transaction, tenant, rows, end).await?;
    }
    Ok(())
}

/// Takes entries out of rows of one block; a row that nothing is left of goes.
async fn thin(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    block: u32,
    edits: Vec<(String, Edit)>,
) -> Result<(), ServiceError> {
    let terms: Vec<&str> = edits.iter().map(|(term, _)| term.as_str()).collect();
    let terms = json(&terms)?;
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT term, entries FROM posting WHERE tenant = ? AND term IN (SELECT value FROM json_each(?)) AND block = ?",
    )
    .bind(tenant.id)
    .bind(&terms)
    .bind(block)
    .fetch_all(&mut *transaction)
    .await
    .map_err(database)?;
    let mut stored: HashMap<String, Vec<u8>> = rows.into_iter().collect();
    let left = |(term, edit): (String, Edit)| {
        let mut entries = postings::without(stored.remove(&term).as_deref().unwrap_or_default(), &edit.removed);
        entries.extend(edit.added);
        (term, block, entries)
    };
    let (kept, empty): (Vec<_>, Vec<_>) = edits
        .into_iter()
        .map(left)
        .partition(|(_, _, entries)| !entries.is_empty());
    for rows in kept.chunks(ROWS_PER_STATEMENT) {
        upsert(
            transaction,
            tenant,
            rows,
            " ON CONFLICT DO UPDATE SET entries = excluded.entries",
        )
        .await?;
    }
    let empty: Vec<&str> = empty.iter().map(|(term, _, _)| term.as_str()).collect();
    sqlx::query("DELETE FROM posting WHERE tenant = ? AND term IN (SELECT value FROM json_each(?)) AND block = ?")
        .bind(tenant.id)
        .bind(json(&empty)?)
        .bind(block)
        .execute(transaction)
        .await
        .map_err(database)?;
    Ok(())
}

async fn upsert(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    rows: &[(String, u32, Vec<u8>)],
    end: &'static str,
) -> Result<(), ServiceError> {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO posting (tenant, term, block, entries) ");
    insert.push_values(rows, |mut row, (term, block, entries)| {
        row.push_bind(tenant.id)
            .push_bind(term)
            .push_bind(*block)
            .push_bind(entries.as_slice());
    });
    insert.push(end).build().execute(transaction).await.map_err(database)?;
    Ok(())
}
