//! Words as sparse vectors, and what their scores tell. Pure.

use std::collections::HashMap;

use qdrant_client::qdrant::SparseVector;
use sha2::{Digest as _, Sha256};

use crate::service::embedded::{B, Indexed, K1};

/// Terms of a chunk against which a long one is measured. A number for good: weights are stored, so a mean that moved with
/// the documents would leave old and new ones incomparable. It is that of a chunk of 500 tokens without its stop words.
const MEAN_TERMS: f64 = 180.0;

/// The dimension of a term. Two terms of one tenant meet in one with a chance of about one in a million for a vocabulary of
/// 100,000 and a question of ten words; they are then found for each other.
pub(super) fn dimension(term: &str) -> u32 {
    let digest: [u8; 32] = Sha256::digest(term.as_bytes()).into();
    digest.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// What is stored of a chunk: for each term how much it counts, before its rarity.
pub(super) fn of_chunk(indexed: &Indexed) -> SparseVector {
    let mut weights: HashMap<u32, f32> = HashMap::new();
    for (term, occurrences) in &indexed.terms {
        *weights.entry(dimension(term)).or_default() += weight(*occurrences, indexed.length);
    }
    let (indices, values) = weights.into_iter().unzip();
    SparseVector { values, indices }
}

/// A question: each of its terms once.
pub(super) fn of_question<'a>(terms: impl IntoIterator<Item = &'a str>) -> SparseVector {
    let mut indices: Vec<u32> = terms.into_iter().map(dimension).collect();
    indices.sort_unstable();
    indices.dedup();
    SparseVector {
        values: vec![1.0; indices.len()],
        indices,
    }
}

fn weight(occurrences: u16, length: u32) -> f32 {
    let occurrences = f64::from(occurrences);
    let relative_length = f64::from(length) / MEAN_TERMS;
    narrow(occurrences * (K1 + 1.0) / (occurrences + K1 * (1.0 - B + B * relative_length)))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are small; the digits lost say nothing about relevance"
)]
pub(super) const fn narrow(weight: f64) -> f32 {
    weight as f32
}

/// How many of `chunks` hold a term, told from the best score of a question of that term alone and the weight of the term
/// in the chunk that has it: their quotient is the rarity that the server counted, `ln(1 + (N - n + 0.5) / (n + 0.5))`.
pub(super) fn holders(chunks: u64, score: f32, weight: f32) -> u64 {
    if weight <= 0.0 || score <= 0.0 {
        return 0;
    }
    let idf = f64::from(score) / f64::from(weight);
    let exact = (real(chunks) + 1.0) / idf.exp() - 0.5;
    // At least the chunk that was found holds it.
    whole(exact.round().clamp(1.0, real(chunks.max(1))))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and between 1 and a count"
)]
const fn whole(count: f64) -> u64 {
    count as u64
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
const fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::embedded::idf;

    #[test]
    fn the_number_of_holders_is_told_from_a_score() {
        for (chunks, count) in [
            (1, 1),
            (3, 1),
            (3, 3),
            (50, 7),
            (100_000, 1),
            (100_000, 4_321),
            (100_000, 100_000),
        ] {
            let weight = 1.7_f32;
            let score = narrow(idf(chunks, count) * f64::from(weight));
            let told = holders(chunks, score, weight);
            assert!(told.abs_diff(count) <= count / 1_000, "{count} of {chunks}: {told}");
        }
        assert_eq!(holders(10, 0.0, 0.0), 0);
    }

    #[test]
    fn a_repeated_word_counts_more_and_a_long_chunk_less() {
        assert!(weight(2, 100) > weight(1, 100));
        assert!(
            weight(20, 100) < f32::from(20_u8) * weight(1, 100) / 4.0,
            "not without end"
        );
        assert!(weight(1, 400) < weight(1, 100));
    }
}
