//! Searching: postings and vectors of one snapshot, ranked, and the chunks behind the ranking.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use stepgraph::TenantId;

use super::{
    SqliteVectors, Tenant, TenantRow, blocking,
    bm25::{self, Scored, Totals, Wanted},
    corrupt, database, dense,
    fusion::{self, Best},
    json, mismatch, number, refused,
};
use crate::{
    language::Term,
    service::{DocumentId, Hit, SearchQuery, ServiceError},
};

/// How deep each list is read for fusion at least: a chunk further down adds less than a hundredth of a first rank.
const FUSION_DEPTH_MIN: usize = 100;

/// Vectors that are read and compared at a time.
const VECTORS_PER_READ: u32 = 2_048;

/// What is stored about the tenant.
pub(super) async fn tenant(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
) -> Result<Option<Tenant>, ServiceError> {
    let row: Option<TenantRow> =
        sqlx::query_as("SELECT id, language, model, dimension, chunks, terms, next_chunk FROM tenant WHERE name = ?")
            .bind(tenant.as_str())
            .fetch_optional(connection)
            .await
            .map_err(database)?;
    row.map(Tenant::try_from).transpose()
}

/// The best chunks for a question.
pub(super) async fn search(
    store: &SqliteVectors,
    tenant_id: &TenantId,
    query: &SearchQuery,
) -> Result<Vec<Hit>, ServiceError> {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut snapshot = store.readers.begin().await.map_err(database)?;
    let Some(tenant) = tenant(&mut snapshot, tenant_id).await? else {
        return Ok(Vec::new());
    };
    let vector = query
        .dense
        .as_deref()
        .map(|vector| question_vector(&tenant, vector))
        .transpose()?;
    let terms = distinct(store.analyzer(&tenant.base.language)?.terms(&query.text));
    let wanted = postings(&mut snapshot, &tenant, terms).await?;
    let near = match vector {
        Some(vector) => Some(nearest(&mut snapshot, &tenant, vector, limit.max(FUSION_DEPTH_MIN)).await?),
        None => None,
    };
    let (totals, dense_weight) = (tenant.totals, store.dense_weight);
    let best = blocking(move || rank(totals, &wanted, near, dense_weight, limit)).await?;
    let mut hits = found(&mut snapshot, &tenant, &best.sure, limit).await?;
    let room = limit.saturating_sub(hits.len());
    hits.extend(found(&mut snapshot, &tenant, &best.tied, room).await?);
    Ok(hits)
}

fn rank(totals: Totals, wanted: &[Wanted], near: Option<Vec<Scored>>, dense_weight: f32, limit: usize) -> Best {
    let sparse = bm25::score(totals, wanted);
    match near {
        None => fusion::best(sparse, limit),
        Some(near) => {
            let (depth, sparse) = (limit.max(FUSION_DEPTH_MIN), sparse.collect::<Vec<_>>());
            fusion::best(fusion::fuse(&sparse, near, dense_weight, depth), limit)
        }
    }
}

/// Each term once, in the order of the question.
fn distinct(terms: Vec<Term>) -> Vec<Term> {
    let mut seen = std::collections::HashSet::new();
    terms
        .into_iter()
        .filter(|term| seen.insert(term.text.clone()))
        .collect()
}

/// The question's vector at length one, checked against the knowledge base.
fn question_vector(tenant: &Tenant, vector: &[f32]) -> Result<Vec<f32>, ServiceError> {
    let expected = tenant.base.embedding.as_ref().map(|(_, length)| *length);
    if u32::try_from(vector.len()).ok() != expected {
        return Err(wrong_vector(vector.len(), expected));
    }
    dense::unit(vector)
        .ok_or_else(|| refused("the question's vector has no direction: all zero, or not finite".to_owned()))
}

/// A question's vector of another length than the chunks have.
pub(in crate::service) fn wrong_vector(length: usize, expected: Option<u32>) -> ServiceError {
    let expected = expected.map_or_else(|| "none".to_owned(), |length| format!("{length} components"));
    mismatch(&format!(
        "the question's vector has {length} components, the chunks have {expected}"
    ))
}

#[derive(sqlx::FromRow)]
struct TermRow {
    term: String,
    blocks: String,
    lengths: String,
    entries: Vec<u8>,
}

/// A list of numbers, as `SQLite` has written it.
fn listed<N: serde::de::DeserializeOwned>(list: &str) -> Result<Vec<N>, ServiceError> {
    serde_json::from_str(list).map_err(|error| corrupt(format!("a list of rows cannot be read: {error}")))
}

/// Where each term occurs; a term that occurs nowhere stays, with nothing. All rows of a term come as one: a word of
/// everyday use has hundreds, and each row of a result is handed from thread to thread.
async fn postings(
    snapshot: &mut SqliteConnection,
    tenant: &Tenant,
    terms: Vec<Term>,
) -> Result<Vec<Wanted>, ServiceError> {
    let texts: Vec<&str> = terms.iter().map(|term| term.text.as_str()).collect();
    // The three lists of a term are made in one pass, so that they are in one order. As `||` does, `group_concat` takes
    // blobs for text, byte for byte.
    let rows: Vec<TermRow> = sqlx::query_as(
        "SELECT term, json_group_array(block) AS blocks, json_group_array(length(entries)) AS lengths, \
           CAST(group_concat(entries, '') AS BLOB) AS entries \
         FROM posting WHERE tenant = ? AND term IN (SELECT value FROM json_each(?)) GROUP BY term",
    )
    .bind(tenant.id)
    .bind(json(&texts)?)
    .fetch_all(snapshot)
    .await
    .map_err(database)?;
    let mut found: HashMap<String, TermRow> = rows.into_iter().map(|row| (row.term.clone(), row)).collect();
    let wanted = |term: Term| {
        let Some(row) = found.remove(&term.text) else {
            return Ok(Wanted {
                bears_meaning: term.bears_meaning,
                ..Wanted::default()
            });
        };
        let (blocks, lengths): (Vec<u32>, Vec<usize>) = (listed(&row.blocks)?, listed(&row.lengths)?);
        Ok(Wanted {
            bears_meaning: term.bears_meaning,
            blocks: blocks.into_iter().zip(lengths).collect(),
            entries: row.entries,
        })
    };
    terms.into_iter().map(wanted).collect()
}

/// The chunks nearest to a unit vector, and those as near as the last of them; every vector of the tenant is compared.
async fn nearest(
    snapshot: &mut SqliteConnection,
    tenant: &Tenant,
    vector: Vec<f32>,
    depth: usize,
) -> Result<Vec<Scored>, ServiceError> {
    let vector = std::sync::Arc::new(vector);
    let (mut near, mut after) = (Vec::new(), -1_i64);
    loop {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT chunk, components FROM vector WHERE tenant = ? AND chunk > ? ORDER BY chunk LIMIT ?",
        )
        .bind(tenant.id)
        .bind(after)
        .bind(VECTORS_PER_READ)
        .fetch_all(&mut *snapshot)
        .await
        .map_err(database)?;
        let Some((last, _)) = rows.last() else {
            return Ok(near);
        };
        after = *last;
        let stored = rows.into_iter().map(|(chunk, bytes)| Ok((number(chunk)?, bytes)));
        let stored: Vec<(u32, Vec<u8>)> = stored.collect::<Result<_, ServiceError>>()?;
        let vector = std::sync::Arc::clone(&vector);
        near = blocking(move || {
            near.extend(dense::score(&vector, &stored));
            let Best { mut sure, tied } = fusion::best(near, depth);
            sure.extend(tied);
            sure
        })
        .await?;
    }
}

#[derive(sqlx::FromRow)]
struct FoundRow {
    id: i64,
    document: String,
    chunk_index: i64,
    title: String,
    text: String,
}

/// The chunks behind scores, at most `limit`: best first, equals by document, then by index.
async fn found(
    snapshot: &mut SqliteConnection,
    tenant: &Tenant,
    scored: &[Scored],
    limit: usize,
) -> Result<Vec<Hit>, ServiceError> {
    let by_id: HashMap<i64, &Scored> = scored.iter().map(|scored| (i64::from(scored.chunk), scored)).collect();
    let ids: Vec<u32> = scored.iter().map(|scored| scored.chunk).collect();
    // Left to itself, SQLite takes the index that is in the order wanted, and reads every chunk of the tenant.
    let rows: Vec<FoundRow> = sqlx::query_as(
        "SELECT id, document, chunk_index, title, text FROM chunk INDEXED BY chunk_id \
         WHERE tenant = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY document, chunk_index LIMIT ?",
    )
    .bind(tenant.id)
    .bind(json(&ids)?)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(snapshot)
    .await
    .map_err(database)?;
    let mut hits = Vec::with_capacity(rows.len());
    for row in rows {
        let scored = by_id.get(&row.id).copied();
        hits.extend(scored.map(|scored| hit(row, scored)).transpose()?);
    }
    hits.sort_by(|a: &Hit, b| b.score.total_cmp(&a.score));
    Ok(hits)
}

fn hit(row: FoundRow, scored: &Scored) -> Result<Hit, ServiceError> {
    Ok(Hit {
        document_id: DocumentId::new(row.document),
        chunk_index: number(row.chunk_index)?,
        title: row.title,
        text: row.text,
        score: scored.score,
        coverage: scored.coverage,
        similarity: scored.similarity,
    })
}
