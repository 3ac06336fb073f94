//! From scores to a ranking: the best of one list, and two lists made one.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use super::bm25::{Scored, shown};

/// Constant of reciprocal rank fusion, as its authors chose it (Cormack, Clarke and Büttcher, SIGIR 2009): it keeps the
/// first ranks of one list from outvoting agreement between both. Ranks count from 1.
const RANK_OFFSET: f64 = 60.0;

/// The best of a list, where the cut may fall among equals: the caller orders those by what they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Best {
    /// Better than all that is cut off, best first.
    pub(super) sure: Vec<Scored>,
    /// Equal to the last that fits.
    pub(super) tied: Vec<Scored>,
}

/// Scores that are held before the best of them are told from the others.
const HELD_MIN: usize = 1_024;

/// The first `limit` of a list and those equal to the last of them. Of a long list no more is held than what may be among
/// them: a word of everyday use scores every chunk there is.
pub(super) fn best(scored: impl IntoIterator<Item = Scored>, limit: usize) -> Best {
    if limit == 0 {
        return Best::default();
    }
    let (mut held, mut room, mut floor) = (Vec::new(), HELD_MIN.max(limit.saturating_mul(2)), f32::NEG_INFINITY);
    for scored in scored {
        if scored.score.total_cmp(&floor).is_lt() {
            continue;
        }
        held.push(scored);
        if held.len() >= room {
            if let Some(last) = last_that_fits(&mut held, limit) {
                floor = last;
                held.retain(|scored| scored.score.total_cmp(&floor).is_ge());
            }
            // Equals cannot be told apart here, however many there are.
            room = HELD_MIN.max(held.len().saturating_mul(2));
        }
    }
    let Some(last) = last_that_fits(&mut held, limit) else {
        held.sort_unstable_by(better_first);
        return Best {
            sure: held,
            tied: Vec::new(),
        };
    };
    let mut sure: Vec<_> = held.iter().copied().filter(|scored| scored.score > last).collect();
    sure.sort_unstable_by(better_first);
    held.retain(|scored| scored.score.total_cmp(&last).is_eq());
    Best { sure, tied: held }
}

/// The score at the end of the first `limit`, where there are more.
fn last_that_fits(held: &mut [Scored], limit: usize) -> Option<f32> {
    (held.len() > limit).then(|| held.select_nth_unstable_by(limit - 1, better_first).1.score)
}

/// Fuses the ranks of both lists: the sum of `weight / (60 + rank)`, sparse with weight 1. Chunks of equal score in a
/// list share its rank, so that the order they were found in never shows. Coverage is kept from `sparse`, which holds
/// every chunk with a word of the question, not only those that rank; similarity from `dense`.
pub(super) fn fuse(sparse: &[Scored], dense: Vec<Scored>, dense_weight: f32, depth: usize) -> Vec<Scored> {
    let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
    let near: HashMap<u32, Option<f32>> = dense.iter().map(|near| (near.chunk, near.similarity)).collect();
    for (list, weight) in [(sparse.to_vec(), 1.0), (dense, f64::from(dense_weight))] {
        for (rank, chunk) in ranked(list, depth) {
            *sums.entry(chunk).or_default() += weight / (RANK_OFFSET + rank);
        }
    }
    let coverage = |chunk: u32| {
        let found = sparse.binary_search_by_key(&chunk, |scored| scored.chunk).ok();
        found
            .and_then(|at| sparse.get(at))
            .map_or(0.0, |scored| scored.coverage)
    };
    let fused = |(chunk, score): (u32, f64)| Scored {
        chunk,
        score: shown(score),
        coverage: coverage(chunk),
        similarity: near.get(&chunk).copied().flatten(),
    };
    sums.into_iter().filter(|(_, score)| *score > 0.0).map(fused).collect()
}

fn better_first(a: &Scored, b: &Scored) -> Ordering {
    b.score.total_cmp(&a.score).then(a.chunk.cmp(&b.chunk))
}

/// The best `depth` chunks with their ranks; all that equal the last of them are in.
fn ranked(list: Vec<Scored>, depth: usize) -> Vec<(f64, u32)> {
    let Best { mut sure, tied } = best(list, depth);
    sure.extend(tied);
    let mut ranks = Vec::with_capacity(sure.len());
    let mut shared = (0.0, f32::NAN);
    for (position, scored) in (1_u32..).zip(sure) {
        if scored.score.total_cmp(&shared.1).is_ne() {
            shared = (f64::from(position), scored.score);
        }
        ranks.push((shared.0, scored.chunk));
    }
    ranks
}
