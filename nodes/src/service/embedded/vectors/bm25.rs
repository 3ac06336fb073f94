//! Okapi BM25 over one tenant's postings (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
//! Beyond", 2009). Pure: postings in, scores out.

use std::collections::BTreeMap;

use super::postings::{self, BLOCK_SLOTS, Posting};

/// How slowly repeated occurrences of a term stop counting. 1.5 is the middle of the customary 1.2 to 2.0: measured on
/// three sets, abstracts judged by subject gain with each step up to 2.0 (nDCG@10 .376, .381, .387), and paragraphs
/// that answer one question lose (.971, .970, .969 in English, .967, .966, .963 in Spanish).
pub(in crate::service) const K1: f64 = 1.5;

/// How much a chunk's length counts against it; the customary value, and neither .65 nor .85 is better on all three.
pub(in crate::service) const B: f64 = 0.75;

/// Totals of the tenant alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// How many chunks there are.
    pub(super) chunks: u64,
    /// How many terms they have together.
    pub(super) terms: u64,
}

/// A term of the question, and where it occurs: packed rows, one behind the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Whether the term counts for coverage.
    pub(super) bears_meaning: bool,
    /// Block of each row, and how many bytes it has.
    pub(super) blocks: Vec<(u32, usize)>,
    /// The rows' entries, in the order of `blocks`.
    pub(super) entries: Vec<u8>,
}

impl Wanted {
    /// Each row with its block.
    fn rows(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut left = self.entries.as_slice();
        self.blocks.iter().filter_map(move |(block, bytes)| {
            let (row, rest) = left.split_at_checked(*bytes)?;
            left = rest;
            Some((*block, row))
        })
    }
}

/// A chunk that holds at least one term of the question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    /// The chunk's id.
    pub(super) chunk: u32,
    /// Higher is better.
    pub(super) score: f32,
    /// Share of the question's terms that the chunk holds, weighted by idf.
    pub(super) coverage: f32,
    /// Cosine with the question's vector, of a chunk that was compared.
    pub(super) similarity: Option<f32>,
}

/// Scores every chunk that holds a term, in the order of their ids.
pub(super) fn score(totals: Totals, wanted: &[Wanted]) -> impl Iterator<Item = Scored> {
    let weights: Vec<Weight> = weights(totals, wanted);
    let mean_length = real(totals.terms) / real(totals.chunks.max(1));
    let mut blocks: BTreeMap<u32, Vec<(Weight, &[u8])>> = BTreeMap::new();
    for (term, weight) in wanted.iter().zip(&weights) {
        for (block, entries) in term.rows() {
            blocks.entry(block).or_default().push((*weight, entries));
        }
    }
    blocks
        .into_iter()
        .flat_map(move |(block, rows)| score_block(block, &rows, mean_length))
}

/// Rarity of a term that `holders` of `chunks` chunks hold; above 0 even where all do.
pub(in crate::service) fn idf(chunks: u64, holders: u64) -> f64 {
    let (chunks, holders) = (real(chunks), real(holders));
    ((chunks - holders + 0.5) / (holders + 0.5) + 1.0).ln()
}

/// Chunks below which a tenant's counts say little of how rare a word is. With a single chunk every word it holds would
/// count as common, and any other word of the question would outweigh the one that matters.
pub(in crate::service) const CHUNKS_TELLING: u64 = 50;

/// A score as it is shown and ranked by.
#[expect(
    clippy::cast_possible_truncation,
    reason = "scores are small; the digits lost say nothing about relevance"
)]
pub(super) const fn shown(score: f64) -> f32 {
    score as f32
}

#[derive(Debug, Clone, Copy)]
struct Weight {
    idf: f64,
    /// Part of the question's whole rarity, 0 for a term that does not count for coverage.
    share: f64,
}

fn weights(totals: Totals, wanted: &[Wanted]) -> Vec<Weight> {
    let holders = |term: &Wanted| postings::count(&term.entries);
    let idfs: Vec<f64> = wanted.iter().map(|term| idf(totals.chunks, holders(term))).collect();
    // A question of grammar alone has nothing else to be measured by.
    let all = !wanted.iter().any(|term| term.bears_meaning);
    let chunks = totals.chunks.max(CHUNKS_TELLING);
    let counted = |term: &Wanted| {
        let counts = all || term.bears_meaning;
        if counts { idf(chunks, holders(term)) } else { 0.0 }
    };
    let whole: f64 = wanted.iter().map(counted).sum();
    let weight = |(term, idf): (&Wanted, f64)| Weight {
        idf,
        share: counted(term) / whole.max(f64::MIN_POSITIVE),
    };
    wanted.iter().zip(idfs).map(weight).collect()
}

fn score_block(block: u32, rows: &[(Weight, &[u8])], mean_length: f64) -> Vec<Scored> {
    let mut sums = [(0.0_f64, 0.0_f64); BLOCK_SLOTS];
    for (weight, entries) in rows {
        for posting in postings::unpack(entries) {
            if let Some((score, coverage)) = sums.get_mut(usize::from(posting.slot)) {
                *score += weight.idf * saturation(posting, mean_length);
                *coverage += weight.share;
            }
        }
    }
    let scored = |(slot, (score, coverage)): (u16, (f64, f64))| Scored {
        chunk: postings::chunk_at(block, slot),
        score: shown(score),
        coverage: shown(coverage.min(1.0)),
        similarity: None,
    };
    (0_u16..)
        .zip(sums)
        .filter(|(_, (score, _))| *score > 0.0)
        .map(scored)
        .collect()
}

fn saturation(posting: Posting, mean_length: f64) -> f64 {
    let occurrences = f64::from(posting.occurrences);
    let relative_length = f64::from(posting.length) / mean_length;
    occurrences * (K1 + 1.0) / (occurrences + K1 * (1.0 - B + B * relative_length))
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
const fn real(count: u64) -> f64 {
    count as f64
}
