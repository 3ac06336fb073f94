//! Searching: one batch of requests, and what it tells.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use qdrant_client::qdrant::{
    QueryBatchPoints, ScoredPoint, SparseVector, VectorsOutput, vector_output, vectors_output,
};
use stepgraph::TenantId;

use super::{QdrantVectors, blocking, corrupt, failed, payload, request, sparse};
use crate::{
    language::{Analyzer, Term},
    service::{
        Chunk, DocumentId, Hit, KnowledgeBase, SearchQuery, ServiceError, VectorStore as _,
        embedded::{CHUNKS_TELLING, Indexed, idf, unit, wrong_vector},
    },
};

/// Terms of a question that are searched at most; a question of 2,000 characters has fewer.
const TERMS_MAX: usize = 512;

/// Points asked for beyond the limit, where the last of them may equal others that were cut off: the order of equals is by
/// document, which the server does not know.
const TIES: u64 = 32;

/// Points of one answer at most; equals beyond them are in the server's order.
const POINTS_MAX: u64 = 4_096;

/// The best chunks for a question.
pub(super) async fn search(
    store: &QdrantVectors,
    tenant: &TenantId,
    query: &SearchQuery,
) -> Result<Vec<Hit>, ServiceError> {
    let Some(base) = store.knowledge_base(tenant).await? else {
        return Ok(Vec::new());
    };
    let meaning = query
        .dense
        .as_deref()
        .map(|vector| fitting(&base, vector))
        .transpose()?;
    let analyzer = store.analyzer(&base.language)?;
    let terms = distinct(analyzer.terms(&query.text));
    if query.limit == 0 || (terms.is_empty() && meaning.is_none()) {
        return Ok(Vec::new());
    }
    let (points, rarities) = ask(store, tenant, &terms, meaning.clone(), u64::from(query.limit)).await?;
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let scored = best(points, meaning.as_deref(), limit)?;
    blocking(move || covered(&analyzer, &terms, &rarities, scored)).await
}

/// The question's vector, checked against the knowledge base.
fn fitting(base: &KnowledgeBase, vector: &[f32]) -> Result<Vec<f32>, ServiceError> {
    let expected = base.embedding.as_ref().map(|(_, length)| *length);
    if u32::try_from(vector.len()).ok() != expected {
        return Err(wrong_vector(vector.len(), expected));
    }
    unit(vector)
        .ok_or_else(|| super::refused("the question's vector has no direction: all zero, or not finite".to_owned()))
}

/// Each term once, in the order of the question.
fn distinct(terms: Vec<Term>) -> Vec<Term> {
    let mut seen = HashSet::new();
    let mut terms: Vec<Term> = terms
        .into_iter()
        .filter(|term| seen.insert(term.text.clone()))
        .collect();
    terms.truncate(TERMS_MAX);
    terms
}

/// How rare each term is in the tenant's chunks: their number, and how many hold each.
struct Rarities {
    chunks: u64,
    holders: Vec<u64>,
}

/// All that is asked of the server for one search: the chunks, how many there are, and how rare each term is.
async fn ask(
    store: &QdrantVectors,
    tenant: &TenantId,
    terms: &[Term],
    meaning: Option<Vec<f32>>,
    limit: u64,
) -> Result<(Vec<ScoredPoint>, Rarities), ServiceError> {
    let words = || {
        let words = sparse::of_question(terms.iter().map(|term| term.text.as_str()));
        (!words.indices.is_empty()).then_some(words)
    };
    let single = |term: &Term| {
        let term = sparse::of_question([term.text.as_str()]);
        request::rarity(store.name(), tenant, term)
    };
    let mut depth = limit.saturating_add(TIES).min(POINTS_MAX.max(limit));
    let asked = |depth| request::search(store.name(), tenant, words(), meaning.clone(), depth);
    let batch = QueryBatchPoints {
        collection_name: store.name().to_owned(),
        query_points: asked(depth).into_iter().chain(terms.iter().map(single)).collect(),
        ..QueryBatchPoints::default()
    };
    let client = store.calling();
    let (answers, chunks) = tokio::join!(client.query_batch(batch), store.count(tenant));
    let (answers, chunks) = (answers.map_err(failed)?, chunks?);
    let mut answers = answers.result.into_iter().map(|answer| answer.result);
    let mut points = answers
        .next()
        .ok_or_else(|| corrupt("a batch was answered with nothing".to_owned()))?;
    let holders = terms.iter().zip(answers).map(|(term, found)| {
        let best = found.into_iter().next()?;
        let weight = weight_of(best.vectors, sparse::dimension(&term.text))?;
        Some(sparse::holders(chunks, best.score, weight))
    });
    let holders = holders.map(Option::unwrap_or_default).collect();
    while is_cut_among_equals(&points, limit, depth) && depth < POINTS_MAX {
        depth = depth.saturating_mul(4).min(POINTS_MAX);
        let Some(deeper) = asked(depth) else { break };
        points = store.calling().query(deeper).await.map_err(failed)?.result;
    }
    Ok((points, Rarities { chunks, holders }))
}

/// Whether what was cut off may equal the last that fits the limit.
fn is_cut_among_equals(points: &[ScoredPoint], limit: u64, depth: u64) -> bool {
    let full = u64::try_from(points.len()).is_ok_and(|found| found >= depth);
    let last_wanted = usize::try_from(limit)
        .ok()
        .and_then(|limit| points.get(limit.checked_sub(1)?));
    full && last_wanted
        .zip(points.last())
        .is_some_and(|(wanted, last)| wanted.score.total_cmp(&last.score).is_eq())
}

fn weight_of(vectors: Option<VectorsOutput>, dimension: u32) -> Option<f32> {
    let Some(vectors_output::VectorsOptions::Vectors(mut named)) = vectors?.vectors_options else {
        return None;
    };
    let vector = named.vectors.remove(payload::SPARSE)?;
    let Some(vector_output::Vector::Sparse(SparseVector { values, indices })) = vector.vector else {
        return None;
    };
    let mut weights = indices.into_iter().zip(values);
    weights.find(|(index, _)| *index == dimension).map(|(_, weight)| weight)
}

/// A chunk that the server has found.
struct Found {
    score: f32,
    similarity: Option<f32>,
    document: DocumentId,
    chunk: Chunk,
}

/// The dense vector that came with a point.
fn vector_of(vectors: Option<VectorsOutput>) -> Option<Vec<f32>> {
    let Some(vectors_output::VectorsOptions::Vectors(mut named)) = vectors?.vectors_options else {
        return None;
    };
    let Some(vector_output::Vector::Dense(dense)) = named.vectors.remove(payload::DENSE)?.vector else {
        return None;
    };
    Some(dense.data)
}

/// How near a stored vector is to the question's, which has the length one.
fn cosine(question: &[f32], stored: &[f32]) -> Option<f32> {
    let stored = unit(stored)?;
    let products = question.iter().zip(&stored).map(|(a, b)| a * b);
    (question.len() == stored.len()).then(|| products.sum())
}

/// The chunks of the best points: best first, equals by document, then by index.
fn best(points: Vec<ScoredPoint>, meaning: Option<&[f32]>, limit: usize) -> Result<Vec<Found>, ServiceError> {
    let mut scored = Vec::with_capacity(points.len());
    for point in points {
        let (document, chunk) = payload::chunk(&point.payload)?;
        let similarity = meaning.and_then(|meaning| cosine(meaning, &vector_of(point.vectors)?));
        scored.push(Found {
            score: point.score,
            similarity,
            document,
            chunk,
        });
    }
    scored.sort_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| a.document.cmp(&b.document))
            .then_with(|| a.chunk.index.cmp(&b.chunk.index))
    });
    scored.truncate(limit);
    Ok(scored)
}

/// Adds the share of the question's meaning that each chunk holds, as the embedded store counts it.
fn covered(analyzer: &Arc<Analyzer>, terms: &[Term], rarities: &Rarities, scored: Vec<Found>) -> Vec<Hit> {
    let shares = shares(terms, rarities);
    let hit = |found: Found| {
        let chunk = found.chunk;
        let indexed = Indexed::new(analyzer, &chunk);
        let coverage: f64 = indexed.terms.keys().filter_map(|term| shares.get(term.as_str())).sum();
        Hit {
            document_id: found.document,
            chunk_index: chunk.index,
            title: chunk.title,
            text: chunk.text,
            score: found.score,
            coverage: sparse::narrow(coverage.min(1.0)),
            similarity: found.similarity,
        }
    };
    scored.into_iter().map(hit).collect()
}

/// Each term's part of the question's whole rarity.
fn shares<'a>(terms: &'a [Term], rarities: &Rarities) -> HashMap<&'a str, f64> {
    // A question of grammar alone has nothing else to be measured by.
    let all = !terms.iter().any(|term| term.bears_meaning);
    let chunks = rarities.chunks.max(CHUNKS_TELLING);
    let counted = terms
        .iter()
        .zip(&rarities.holders)
        .filter(|(term, _)| all || term.bears_meaning)
        .map(|(term, holders)| (term.text.as_str(), idf(chunks, *holders)));
    let counted: HashMap<&str, f64> = counted.collect();
    let whole: f64 = counted.values().sum();
    counted
        .into_iter()
        .map(|(term, idf)| (term, idf / whole.max(f64::MIN_POSITIVE)))
        .collect()
}
