//! Where a piece starts so that it repeats the end of the piece before.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::{ChunkLimits, count};

/// Bytes of the piece before that are looked at; fifty tokens are seldom more.
const LOOK_BACK: usize = 320;

/// The start of the overlap that `core` gets from `before`: the earliest sentence that still fits, if that is most of
/// what may be repeated, else the earliest word.
pub(super) fn start(text: &str, before: &Range<usize>, core: &Range<usize>, limits: &ChunkLimits) -> usize {
    let from = before
        .start
        .max(text.floor_char_boundary(before.end.saturating_sub(LOOK_BACK)));
    let Some(tail) = text.get(from..before.end) else {
        return core.start;
    };
    let shared = |start: usize| count(text.get(start..core.start).unwrap_or_default());
    // Tokens may join differently where overlap and core meet, so that the sum alone proves nothing.
    let whole_fits = |start: usize| count(text.get(start..core.end).unwrap_or_default()) <= limits.tokens_max;
    // Neither the first sentence nor the first word of the tail is known to be whole.
    let known = |start: &usize| *start > from || from == before.start;
    let earliest = |starts: Vec<usize>| {
        let first = starts.partition_point(|start| shared(*start) > limits.overlap_tokens_max);
        starts.into_iter().skip(first)
    };
    let sentences = tail
        .split_sentence_bound_indices()
        .map(|(at, _)| from + at)
        .filter(known)
        .collect();
    let enough = |start: &usize| shared(*start) * 5 >= limits.overlap_tokens_max * 3;
    if let Some(start) = earliest(sentences)
        .next()
        .filter(enough)
        .filter(|start| whole_fits(*start))
    {
        return start;
    }
    let words = tail
        .split_word_bound_indices()
        .filter(|(_, word)| !word.trim().is_empty())
        .map(|(at, _)| from + at);
    let words = words.filter(known).filter(|at| begins_word(text, *at)).collect();
    earliest(words).find(|start| whole_fits(*start)).unwrap_or(core.start)
}

/// Whether a word boundary is a good place to start reading: after a space, or in a script without spaces.
fn begins_word(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|before| before.chars().next_back());
    let after = text.get(at..).and_then(|after| after.chars().next());
    before.is_none_or(char::is_whitespace) || after.is_some_and(|c| c.is_alphanumeric() && u32::from(c) >= 0x0E00)
}
