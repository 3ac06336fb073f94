//! Many documents out of one `.jsonl` file, a batch at a time.

use std::{collections::HashSet, path::Path};

use serde::Deserialize;
use stepgraph::TenantId;
use stepgraph_nodes::{
    chunk::{ChunkLimits, Piece, chunk},
    language::detect,
    parse::Parsed,
    service::{Chunk, Document, DocumentId, DocumentStatus, FileType, KnowledgeBase, Purpose},
};

use super::{
    super::{CliError, jsonl::Lines, stop::Stop},
    bar,
    outcome::{Outcome, Row, Tally},
};
use crate::app::Installation;

/// Documents in one transaction of the vector store.
const BATCH: usize = 128;

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

/// Ingests the file, passing over what an earlier run has finished. Stops between two batches when asked to.
pub(super) async fn ingest(
    installation: &Installation,
    tenant: &TenantId,
    path: &Path,
    stop: &Stop,
    tally: &mut Tally,
) -> Result<(), CliError> {
    let length = count(path)?;
    let bar = bar(length);
    bar.set_message(path.display().to_string());
    let mut lines = Lines::<Line>::open(path, EXPECTED)?;
    let mut next = None;
    while !stop.is_asked() {
        let batch = batch(&mut lines, &mut next)?;
        if batch.is_empty() {
            break;
        }
        let size = batch.len();
        for (id, outcome) in store(installation, tenant, batch).await? {
            tally.add_bulk(Row {
                path: path.to_owned(),
                id,
                outcome,
            });
        }
        bar.inc(u64::try_from(size).unwrap_or(u64::MAX));
    }
    bar.finish_and_clear();
    Ok(())
}

const EXPECTED: &str = "a document {\"id\", \"title\", \"text\"}";

/// Reads the whole file once before anything is written, so that a wrong line at its end is found at the start.
fn count(path: &Path) -> Result<usize, CliError> {
    let mut lines = Lines::<Line>::open(path, EXPECTED)?;
    let mut count = 0;
    while lines.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The next documents, at most [`BATCH`] and no id twice: the second of the same id begins the next batch.
fn batch(lines: &mut Lines<Line>, next: &mut Option<Line>) -> Result<Vec<Line>, CliError> {
    let mut batch: Vec<Line> = Vec::new();
    let mut ids = HashSet::new();
    while batch.len() < BATCH {
        let line = match next.take() {
            Some(line) => line,
            None => match lines.next()? {
                Some((_, line)) => line,
                None => break,
            },
        };
        if !ids.insert(line.id.clone()) {
            *next = Some(line);
            break;
        }
        batch.push(line);
    }
    Ok(batch)
}

async fn store(
    installation: &Installation,
    tenant: &TenantId,
    batch: Vec<Line>,
) -> Result<Vec<(DocumentId, Outcome)>, CliError> {
    let mut outcomes = Vec::new();
    let mut fresh = Vec::new();
    for line in batch {
        let id = DocumentId::new(line.id.as_str());
        if line.text.trim().is_empty() {
            outcomes.push((id, Outcome::WithoutText));
            continue;
        }
        let title = line.title.clone().unwrap_or_else(|| line.id.clone());
        let document = installation
            .records
            .documents
            .accept(tenant, &id, &title, FileType::Txt, line.text.as_bytes())
            .await?;
        if document.status == DocumentStatus::Completed {
            outcomes.push((
                id,
                Outcome::Unchanged {
                    chunks: document.chunks_total.unwrap_or(0),
                },
            ));
        } else {
            fresh.push((document, title, line.text));
        }
    }
    if fresh.is_empty() {
        return Ok(outcomes);
    }
    prepare(installation, tenant, &fresh).await?;
    let (documents, mut chunked) = cut(fresh).await?;
    embed(installation, tenant, &mut chunked).await?;
    let points = installation.vectors.replace_many(tenant, &chunked).await?;
    for (document, points) in documents.into_iter().zip(points) {
        let chunks = u32::try_from(points.len()).unwrap_or(u32::MAX);
        let done = Document {
            status: DocumentStatus::Completed,
            progress: 100,
            chunks_total: Some(chunks),
            chunks_processed: Some(chunks),
            point_ids: points,
            ..document
        };
        installation.records.documents.progress(tenant, &done).await?;
        installation
            .records
            .documents
            .unstage(tenant, &done.id, done.version)
            .await?;
        outcomes.push((done.id, Outcome::Stored { chunks }));
    }
    Ok(outcomes)
}

/// At the first ingest of a tenant the language is told from the first batch; later calls change nothing.
async fn prepare(
    installation: &Installation,
    tenant: &TenantId,
    fresh: &[(Document, String, String)],
) -> Result<(), CliError> {
    let sample = fresh
        .iter()
        .map(|(_, _, text)| text.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    let proposal = KnowledgeBase {
        language: detect(&sample).code().to_owned(),
        embedding: installation.embedding(),
    };
    installation.vectors.prepare(tenant, &proposal).await?;
    Ok(())
}

type Cut = (Vec<Document>, Vec<(DocumentId, Vec<Chunk>)>);

/// Cuts the texts off the runtime's own threads: counting tokens is work.
async fn cut(fresh: Vec<(Document, String, String)>) -> Result<Cut, CliError> {
    let cut = tokio::task::spawn_blocking(move || {
        fresh
            .into_iter()
            .map(|(document, title, text)| {
                let parsed = Parsed {
                    file_type: FileType::Txt,
                    text,
                    pages: Vec::new(),
                    records: None,
                };
                let pieces = chunk(&parsed, &ChunkLimits::default());
                let chunks = pieces.into_iter().map(|Piece { index, text, .. }| Chunk {
                    index,
                    title: title.clone(),
                    text,
                    dense: None,
                });
                let chunked = (document.id.clone(), chunks.collect());
                (document, chunked)
            })
            .unzip()
    });
    cut.await.map_err(|stopped| CliError::System {
        what: "a thread to cut the texts",
        source: stopped.into(),
    })
}

async fn embed(
    installation: &Installation,
    tenant: &TenantId,
    chunked: &mut [(DocumentId, Vec<Chunk>)],
) -> Result<(), CliError> {
    let Some(embedder) = &installation.embedder else {
        return Ok(());
    };
    for (_, chunks) in chunked {
        let texts: Vec<String> = chunks.iter().map(|chunk| chunk.text.clone()).collect();
        let vectors = embedder.embed(tenant, Purpose::Document, &texts).await?;
        for (chunk, vector) in chunks.iter_mut().zip(vectors) {
            chunk.dense = Some(vector);
        }
    }
    Ok(())
}
