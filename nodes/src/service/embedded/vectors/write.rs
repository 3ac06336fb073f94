//! Replacing and deleting documents: chunks, postings, vectors and totals move in one transaction.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use stepgraph::TenantId;

use super::{
    ROWS_PER_STATEMENT, SqliteVectors, Tenant, blocking, database, dense,
    indexed::Indexed,
    inverted::{self, Edits},
    json, mismatch, number,
    postings::{self, Posting},
    read, refused, unprepared,
};
use crate::{
    language::Analyzer,
    service::{Chunk, DocumentId, KnowledgeBase, ServiceError},
};

/// A chunk that is to be stored.
struct Added {
    chunk: Chunk,
    indexed: Indexed,
    components: Option<Vec<u8>>,
}

/// A chunk as it is stored.
#[derive(sqlx::FromRow)]
struct Stored {
    id: i64,
    document: String,
    chunk_index: i64,
    title: String,
    text: String,
    length: i64,
    terms: String,
    components: Option<Vec<u8>>,
}

/// Makes the chunks the whole content of each document; where a document stands twice, the last one holds.
pub(super) async fn replace(
    store: &SqliteVectors,
    tenant_id: &TenantId,
    documents: &[(&DocumentId, &[Chunk])],
) -> Result<(), ServiceError> {
    let mut reader = store.readers.acquire().await.map_err(database)?;
    let base = read::tenant(&mut reader, tenant_id)
        .await?
        .ok_or_else(|| unprepared(tenant_id))?
        .base;
    drop(reader);
    for (document, chunks) in documents {
        check(&base, document, chunks)?;
    }
    let analyzer = store.analyzer(&base.language)?;
    let owned: BTreeMap<String, Vec<Chunk>> = documents
        .iter()
        .map(|(document, chunks)| (document.as_str().to_owned(), chunks.to_vec()))
        .collect();
    let mut added = blocking(move || analysed(&analyzer, owned)).await?;

    let mut transaction = store.writer.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
    let tenant = read::tenant(&mut transaction, tenant_id)
        .await?
        .ok_or_else(|| unprepared(tenant_id))?;
    let names: Vec<&str> = added.keys().map(String::as_str).collect();
    let mut removed = stored(&mut transaction, &tenant, &names).await?;
    let same: HashSet<String> = unchanged(&added, &removed);
    added.retain(|document, _| !same.contains(document));
    removed.retain(|chunk| !same.contains(&chunk.document));
    apply(&mut transaction, &tenant, removed, added).await?;
    transaction.commit().await.map_err(database)
}

/// Removes the document and says how many chunks it had.
pub(super) async fn delete(
    store: &SqliteVectors,
    tenant_id: &TenantId,
    document: &DocumentId,
) -> Result<u64, ServiceError> {
    let mut transaction = store.writer.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
    let Some(tenant) = read::tenant(&mut transaction, tenant_id).await? else {
        return Ok(0);
    };
    let removed = stored(&mut transaction, &tenant, &[document.as_str()]).await?;
    let count = u64::try_from(removed.len()).unwrap_or(u64::MAX);
    apply(&mut transaction, &tenant, removed, BTreeMap::new()).await?;
    transaction.commit().await.map_err(database)?;
    Ok(count)
}

/// Removes all rows of the tenant and says how many chunks there were.
pub(super) async fn erase(store: &SqliteVectors, tenant_id: &TenantId) -> Result<u64, ServiceError> {
    let mut transaction = store.writer.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
    let Some(tenant) = read::tenant(&mut transaction, tenant_id).await? else {
        return Ok(0);
    };
    for delete in [
        "DELETE FROM posting WHERE tenant = ?",
        "DELETE FROM vector WHERE tenant = ?",
        "DELETE FROM vector_next WHERE tenant = ?",
        "DELETE FROM chunk WHERE tenant = ?",
        "DELETE FROM tenant WHERE id = ?",
    ] {
        sqlx::query(delete)
            .bind(tenant.id)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
    }
    transaction.commit().await.map_err(database)?;
    Ok(tenant.totals.chunks)
}

/// Refuses chunks that the knowledge base cannot hold.
pub(in crate::service) fn check(
    base: &KnowledgeBase,
    document: &DocumentId,
    chunks: &[Chunk],
) -> Result<(), ServiceError> {
    let expected = base.embedding.as_ref().map(|(_, length)| *length);
    let mut indices = HashSet::new();
    for chunk in chunks {
        let place = || format!("chunk {} of `{}`", chunk.index, document.as_str());
        if !indices.insert(chunk.index) {
            return Err(refused(format!("{} stands twice: number the chunks from 0", place())));
        }
        let length = chunk
            .dense
            .as_ref()
            .map(|vector| u32::try_from(vector.len()).unwrap_or(u32::MAX));
        if length != expected {
            let count =
                |length: Option<u32>| length.map_or_else(|| "no vector".to_owned(), |n| format!("{n} components"));
            return Err(mismatch(&format!(
                "{} has {}, its chunks have {}",
                place(),
                count(length),
                count(expected)
            )));
        }
        if chunk
            .dense
            .as_deref()
            .is_some_and(|vector| dense::unit(vector).is_none())
        {
            return Err(refused(format!(
                "the vector of {} has no direction: all zero, or not finite",
                place()
            )));
        }
    }
    Ok(())
}

fn analysed(analyzer: &Arc<Analyzer>, documents: BTreeMap<String, Vec<Chunk>>) -> BTreeMap<String, Vec<Added>> {
    let added = |chunk: Chunk| Added {
        indexed: Indexed::new(analyzer, &chunk),
        components: chunk
            .dense
            .as_deref()
            .and_then(dense::unit)
            .map(|vector| dense::pack(&vector)),
        chunk,
    };
    let each = documents.into_iter();
    each.map(|(document, chunks)| (document, chunks.into_iter().map(added).collect()))
        .collect()
}

async fn stored(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    documents: &[&str],
) -> Result<Vec<Stored>, ServiceError> {
    sqlx::query_as(
        "SELECT id, document, chunk_index, title, text, length, terms, components FROM chunk \
         LEFT JOIN vector ON vector.tenant = chunk.tenant AND vector.chunk = chunk.id \
         WHERE chunk.tenant = ? AND document IN (SELECT value FROM json_each(?))",
    )
    .bind(tenant.id)
    .bind(json(documents)?)
    .fetch_all(transaction)
    .await
    .map_err(database)
}

/// The documents whose content is stored already, word for word and under the same terms.
fn unchanged(added: &BTreeMap<String, Vec<Added>>, stored: &[Stored]) -> HashSet<String> {
    let mut by_document: HashMap<&str, HashMap<i64, &Stored>> = HashMap::new();
    for chunk in stored {
        by_document
            .entry(&chunk.document)
            .or_default()
            .insert(chunk.chunk_index, chunk);
    }
    let is_same = |new: &Added, old: &Stored| {
        new.chunk.title == old.title
            && new.chunk.text == old.text
            && new.components == old.components
            && i64::from(new.indexed.length) == old.length
            && new.indexed.listed() == old.terms
    };
    let all_same = |document: &str, chunks: &[Added]| {
        let old = by_document.get(document);
        let at = |index: u32| old.and_then(|old| old.get(&i64::from(index)));
        old.map_or(0, HashMap::len) == chunks.len()
            && chunks
                .iter()
                .all(|new| at(new.chunk.index).is_some_and(|old| is_same(new, old)))
    };
    let same = added.iter().filter(|(document, chunks)| all_same(document, chunks));
    same.map(|(document, _)| document.clone()).collect()
}

async fn apply(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    removed: Vec<Stored>,
    added: BTreeMap<String, Vec<Added>>,
) -> Result<(), ServiceError> {
    let count = added.values().map(Vec::len).sum::<usize>();
    let ids_end = u32::try_from(count)
        .ok()
        .and_then(|count| tenant.next_chunk.checked_add(count));
    let ids_end = ids_end.ok_or_else(|| {
        refused("the tenant has used up its chunk ids: erase the tenant and ingest its documents anew".to_owned())
    })?;
    let added: Vec<(u32, String, Added)> = (tenant.next_chunk..ids_end)
        .zip(
            added
                .into_iter()
                .flat_map(|(document, chunks)| chunks.into_iter().map(move |chunk| (document.clone(), chunk))),
        )
        .map(|(id, (document, chunk))| (id, document, chunk))
        .collect();

    remove_chunks(transaction, tenant, &removed).await?;
    insert_chunks(transaction, tenant, &added).await?;
    let chunks_delta = difference(added.len(), removed.len());
    let terms_delta = added
        .iter()
        .map(|(_, _, new)| i64::from(new.indexed.length))
        .sum::<i64>()
        - removed.iter().map(|old| old.length).sum::<i64>();
    let edits = blocking(move || edits(&removed, &added)).await??;
    inverted::write(transaction, tenant, edits).await?;
    sqlx::query("UPDATE tenant SET chunks = chunks + ?, terms = terms + ?, next_chunk = ? WHERE id = ?")
        .bind(chunks_delta)
        .bind(terms_delta)
        .bind(ids_end)
        .bind(tenant.id)
        .execute(transaction)
        .await
        .map_err(database)?;
    Ok(())
}

fn difference(more: usize, less: usize) -> i64 {
    let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    whole(more) - whole(less)
}

async fn remove_chunks(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    removed: &[Stored],
) -> Result<(), ServiceError> {
    let ids: Vec<i64> = removed.iter().map(|chunk| chunk.id).collect();
    for statement in [
        "DELETE FROM vector WHERE tenant = ? AND chunk IN (SELECT value FROM json_each(?))",
        "DELETE FROM vector_next WHERE tenant = ? AND chunk IN (SELECT value FROM json_each(?))",
        "DELETE FROM chunk WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))",
    ] {
        let statement = sqlx::query(statement).bind(tenant.id).bind(json(&ids)?);
        statement.execute(&mut *transaction).await.map_err(database)?;
    }
    Ok(())
}

async fn insert_chunks(
    transaction: &mut SqliteConnection,
    tenant: &Tenant,
    added: &[(u32, String, Added)],
) -> Result<(), ServiceError> {
    for rows in added.chunks(ROWS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO chunk (tenant, id, document, chunk_index, title, text, length, terms) ",
        );
        insert.push_values(rows, |mut row, (id, document, new)| {
            row.push_bind(tenant.id)
                .push_bind(*id)
                .push_bind(document)
                .push_bind(new.chunk.index);
            row.push_bind(&new.chunk.title).push_bind(&new.chunk.text);
            row.push_bind(new.indexed.length).push_bind(new.indexed.listed());
        });
        insert.build().execute(&mut *transaction).await.map_err(database)?;
    }
    let vectors: Vec<_> = added
        .iter()
        .filter_map(|(id, _, new)| Some((*id, new.components.as_ref()?)))
        .collect();
    for rows in vectors.chunks(ROWS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO vector (tenant, chunk, components) ");
        insert.push_values(rows, |mut row, (id, components)| {
            row.push_bind(tenant.id).push_bind(*id).push_bind(components.as_slice());
        });
        insert.build().execute(&mut *transaction).await.map_err(database)?;
    }
    Ok(())
}

fn edits(removed: &[Stored], added: &[(u32, String, Added)]) -> Result<Edits, ServiceError> {
    let mut edits = Edits::new();
    for old in removed {
        let (block, slot) = postings::place(number(old.id)?);
        for term in old.terms.split_ascii_whitespace() {
            edits.entry((term.to_owned(), block)).or_default().removed.push(slot);
        }
    }
    for (id, _, new) in added {
        let (block, slot) = postings::place(*id);
        for (term, occurrences) in &new.indexed.terms {
            let posting = Posting {
                slot,
                occurrences: *occurrences,
                length: new.indexed.length,
            };
            edits
                .entry((term.clone(), block))
                .or_default()
                .added
                .extend(posting.pack());
        }
    }
    Ok(edits)
}
