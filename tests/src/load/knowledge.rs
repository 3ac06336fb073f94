//! What the tenant knows: documents of made-up words, as often used as words are.

use std::{path::Path, sync::Arc};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    Chunk, Client, Clients, DocumentId, KnowledgeBase, VectorStore,
    embedded::{SqliteRecords, SqliteVectors},
};
use stepgraph_server::app::open_database;

use crate::TestError;

const WORDS: u32 = 20_000;
const CHUNK_WORDS: usize = 80;
const QUESTION_WORDS: usize = 5;
const DOCUMENT_CHUNKS: u32 = 100;
/// Documents of one transaction.
const AT_ONCE: u32 = 20;

pub(super) struct Knowledge {
    /// The key of the tenant who knows it.
    pub(super) key: String,
    chunks: u32,
}

impl Knowledge {
    /// Makes a tenant without an hourly limit that knows so many chunks, of a made-up language.
    pub(super) async fn make(folder: &Path, chunks: u32) -> Result<Self, TestError> {
        let tenant = TenantId::authenticated("load")?;
        let records = Arc::new(SqliteRecords::open(open_database(&folder.join("stepgraph.db")).await?).await?);
        let key = records
            .put(&Client {
                unlimited: true,
                ..Client::new(tenant.clone())
            })
            .await?;
        let vectors = SqliteVectors::open(folder.join("vectors.db")).await?;
        let base = KnowledgeBase {
            language: "und".to_owned(),
            embedding: None,
        };
        vectors.prepare(&tenant, &base).await?;
        let documents: Vec<u32> = (0..chunks.div_ceil(DOCUMENT_CHUNKS)).collect();
        for some in documents.chunks(usize::try_from(AT_ONCE)?) {
            let some: Vec<_> = some
                .iter()
                .map(|number| {
                    let left = chunks - number * DOCUMENT_CHUNKS;
                    document(*number, left.min(DOCUMENT_CHUNKS))
                })
                .collect();
            vectors.replace_many(&tenant, &some).await?;
        }
        Ok(Self { key, chunks })
    }

    /// The question of this number, always the same: about something that one of the chunks says.
    pub(super) fn question(&self, number: u64) -> String {
        let mut random = StdRng::seed_from_u64(number);
        let mut known = words(random.random_range(0..self.chunks));
        known.dedup();
        let at = random.random_range(0..=known.len().saturating_sub(QUESTION_WORDS));
        let asked: Vec<String> = known.into_iter().skip(at).take(QUESTION_WORDS).collect();
        asked.join(" ") + "?"
    }
}

fn document(number: u32, chunks: u32) -> (DocumentId, Vec<Chunk>) {
    let chunks = (0..chunks)
        .map(|index| Chunk {
            index,
            title: format!("document {number}"),
            text: words(number * DOCUMENT_CHUNKS + index).join(" "),
            dense: None,
        })
        .collect();
    (DocumentId::new(format!("document-{number}")), chunks)
}

/// The words of this chunk, always the same.
fn words(chunk: u32) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(chunk.into());
    (0..CHUNK_WORDS).map(|_| word(&mut random)).collect()
}

/// A word whose number is about as likely as one over itself, as words of a language are (Zipf's law).
fn word(random: &mut StdRng) -> String {
    const SYLLABLES: [&str; 16] = [
        "ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu", "da", "fe", "gi", "ho", "pa", "we",
    ];
    let exponent = random.random_range(0.0..f64::from(WORDS).log2());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the number of words"
    )]
    let mut number = exponent.exp2() as usize;
    let mut word = String::new();
    loop {
        word.push_str(SYLLABLES.get(number % SYLLABLES.len()).copied().unwrap_or_default());
        number /= SYLLABLES.len();
        if number == 0 {
            return word;
        }
    }
}
