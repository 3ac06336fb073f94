//! Measures retrieval over sets of documents, questions and judgements: nDCG@10, recall@5, MRR@10, time, coverage.
//!
//! ```text
//! cargo run --release -p stepgraph-nodes --example ndcg -- [--language CODE] [--foreign DIR] DIR..
//! ```
//!
//! A set is a folder with `docs.jsonl` (`{"id", "title", "text"}`), `queries.jsonl` (`{"id", "text"}`) and `qrels.jsonl`
//! (`{"query_id", "doc_id", "grade"}`). The language is detected from the documents unless given. With `--foreign`, the
//! questions of that set are asked too, to see what coverage questions reach that the documents do not answer.
#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use stepgraph::TenantId;
use stepgraph_nodes::{
    language::{self, Language},
    service::{Chunk, DocumentId, Hit, KnowledgeBase, SearchQuery, VectorStore, embedded::SqliteVectors},
};
use tokio::time::Instant;

const DOCUMENTS_PER_CALL: usize = 500;
const CHUNKS_PER_QUESTION: u32 = 100;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

#[derive(Deserialize)]
struct Judgement {
    query_id: String,
    doc_id: String,
    grade: f64,
}

#[derive(Default)]
struct Options {
    language: Option<Language>,
    foreign: Option<PathBuf>,
    sets: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = options(std::env::args().skip(1))?;
    println!("set\tlanguage\tnDCG@10\trecall@5\tMRR@10\tingest\tper question\tcoverage of first relevant: 5%/25%/50%");
    for set in &options.sets {
        measure(set, &options).await?;
    }
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--language" => options.language = Some(arguments.next().ok_or("--language needs a code")?.parse()?),
            "--foreign" => options.foreign = Some(arguments.next().ok_or("--foreign needs a folder")?.into()),
            _ => options.sets.push(argument.into()),
        }
    }
    if options.sets.is_empty() {
        Err("name at least one folder with a set".into())
    } else {
        Ok(options)
    }
}

async fn measure(set: &Path, options: &Options) -> Result<(), Failure> {
    let documents: Vec<Entry> = read(set, "docs.jsonl")?;
    let questions: Vec<Entry> = read(set, "queries.jsonl")?;
    let judgements = judgements(read(set, "qrels.jsonl")?);
    let language = options.language.unwrap_or_else(|| detected(&documents));

    let folder = tempfile::tempdir()?;
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await?;
    let tenant = TenantId::authenticated("measured")?;
    let ingest = ingest(&store, &tenant, documents, language).await?;

    let mut figures = Figures::default();
    let begin = Instant::now();
    for question in &questions {
        let hits = search(&store, &tenant, &question.text).await?;
        if let Some(grades) = judgements.get(&question.id) {
            figures.add(&ranking(&hits), grades);
        }
    }
    let each = begin.elapsed() / u32::try_from(questions.len())?.max(1);
    figures.print(set, language, ingest, each);

    if let Some(foreign) = &options.foreign {
        let mut coverage = Vec::new();
        for question in read::<Entry>(foreign, "queries.jsonl")? {
            let hits = search(&store, &tenant, &question.text).await?;
            coverage.push(hits.iter().map(|hit| hit.coverage).fold(0.0, f32::max));
        }
        let [usual, high, highest] = quantiles(coverage, [0.5, 0.95, 0.99]);
        println!("\tforeign questions' best coverage: 50% {usual:.2}, 95% {high:.2}, 99% {highest:.2}");
    }
    Ok(())
}

async fn ingest(
    store: &impl VectorStore,
    tenant: &TenantId,
    documents: Vec<Entry>,
    language: Language,
) -> Result<Duration, Failure> {
    let base = KnowledgeBase {
        language: language.code().to_owned(),
        embedding: None,
    };
    let begin = Instant::now();
    store.prepare(tenant, &base).await?;
    let chunk = |document: Entry| {
        let chunk = Chunk {
            index: 0,
            title: document.title,
            text: document.text,
            dense: None,
        };
        (DocumentId::new(document.id), vec![chunk])
    };
    let documents: Vec<_> = documents.into_iter().map(chunk).collect();
    for some in documents.chunks(DOCUMENTS_PER_CALL) {
        store.replace_many(tenant, some).await?;
    }
    Ok(begin.elapsed())
}

async fn search(store: &impl VectorStore, tenant: &TenantId, text: &str) -> Result<Vec<Hit>, Failure> {
    let query = SearchQuery {
        text: text.to_owned(),
        dense: None,
        limit: CHUNKS_PER_QUESTION,
    };
    Ok(store.search(tenant, &query).await?)
}

/// The language of a sample of the documents, as a first ingest would detect it.
fn detected(documents: &[Entry]) -> Language {
    let sample: Vec<&str> = documents
        .iter()
        .take(20)
        .map(|document| document.text.as_str())
        .collect();
    language::detect(&sample.join("\n"))
}

fn read<T: DeserializeOwned>(set: &Path, name: &str) -> Result<Vec<T>, Failure> {
    let path = set.join(name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

type Grades = HashMap<String, f64>;

fn judgements(all: Vec<Judgement>) -> HashMap<String, Grades> {
    let mut by_question: HashMap<String, Grades> = HashMap::new();
    for judgement in all {
        by_question
            .entry(judgement.query_id)
            .or_default()
            .insert(judgement.doc_id, judgement.grade);
    }
    by_question
}

/// Documents by their best chunk, each with that chunk's coverage.
fn ranking(hits: &[Hit]) -> Vec<(&str, f32)> {
    let mut seen = std::collections::HashSet::new();
    let best = hits.iter().filter(|hit| seen.insert(hit.document_id.as_str()));
    best.map(|hit| (hit.document_id.as_str(), hit.coverage)).collect()
}

#[derive(Default)]
struct Figures {
    ndcg: Vec<f64>,
    recall: Vec<f64>,
    reciprocal_rank: Vec<f64>,
    coverage: Vec<f32>,
}

impl Figures {
    fn add(&mut self, ranking: &[(&str, f32)], grades: &Grades) {
        let grade = |(document, _): &(&str, f32)| grades.get(*document).copied().unwrap_or(0.0);
        let gained = gain(ranking.iter().take(10).map(grade));
        let mut ideal: Vec<f64> = grades.values().copied().collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        self.ndcg.push(gained / gain(ideal.into_iter().take(10)));
        let found = ranking.iter().take(5).filter(|entry| grade(entry) > 0.0).count();
        self.recall.push(real(found) / real(grades.len()));
        let first = ranking.iter().position(|entry| grade(entry) > 0.0);
        self.reciprocal_rank.push(
            first
                .filter(|rank| *rank < 10)
                .map_or(0.0, |rank| 1.0 / (real(rank) + 1.0)),
        );
        self.coverage
            .extend(first.and_then(|rank| ranking.get(rank)).map(|(_, coverage)| *coverage));
    }

    fn print(self, set: &Path, language: Language, ingest: Duration, each: Duration) {
        let [low, quarter, half] = quantiles(self.coverage, [0.05, 0.25, 0.5]);
        let (ndcg, recall, reciprocal_rank) = (mean(&self.ndcg), mean(&self.recall), mean(&self.reciprocal_rank));
        println!(
            "{}\t{language}\t{ndcg:.4}\t{recall:.4}\t{reciprocal_rank:.4}\t{ingest:.2?}\t{each:.2?}\t\
             {low:.2}/{quarter:.2}/{half:.2}",
            set.file_name().unwrap_or_default().display(),
        );
    }
}

/// Discounted cumulative gain with linear gains.
fn gain(grades: impl Iterator<Item = f64>) -> f64 {
    (2_u32..)
        .zip(grades)
        .map(|(rank, grade)| grade / f64::from(rank).log2())
        .sum()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / real(values.len().max(1))
}

fn quantiles<const N: usize>(mut values: Vec<f32>, shares: [f64; N]) -> [f32; N] {
    values.sort_by(f32::total_cmp);
    let last = values.len().saturating_sub(1);
    shares.map(|share| {
        let at = (0..last).find(|at| real(*at) >= share * real(last)).unwrap_or(last);
        values.get(at).copied().unwrap_or(f32::NAN)
    })
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
