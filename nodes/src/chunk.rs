//! Cutting a text into chunks of about 500 tokens.
//!
//! Prose is cut where its structure is ([`text_splitter`]: paragraphs before sentences before words) into *cores* that
//! together are the whole text; each piece then begins with the last sentence or words of the one before
//! (`overlap`), since the splitter's own overlap is made of whole paragraphs and so mostly empty. A table is cut
//! between its rows, which carry their column names, so pieces of a table need no overlap.
//!
//! Counting tokens is work for a processor: about two megabytes a second. Async callers use
//! `tokio::task::spawn_blocking`.

mod overlap;
mod runs;

use std::{ops::Range, sync::LazyLock};

use serde::{Deserialize, Serialize};
use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};
use tiktoken_rs::CoreBPE;

use crate::parse::{Parsed, Table};

/// How large pieces may be. The tokens are those of `o200k_base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkLimits {
    /// Tokens of a piece, overlap included; never exceeded.
    pub tokens_max: usize,
    /// Tokens repeated from the piece before, at most.
    pub overlap_tokens_max: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self {
            tokens_max: 500,
            overlap_tokens_max: 50,
        }
    }
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Position in the document, from 0.
    pub index: u32,
    /// Its text: the overlap with the piece before, then its own core.
    pub text: String,
    /// Where the core lies in the document's text, in bytes. Cores follow each other with nothing but white space
    /// between them.
    pub core: Range<usize>,
}

/// The pieces of a document, in order.
#[must_use]
pub fn chunk(parsed: &Parsed, limits: &ChunkLimits) -> Vec<Piece> {
    let spans = match &parsed.records {
        Some(table) if !table.rows.is_empty() => rows(&parsed.text, table, limits),
        _ => prose(&parsed.text, 0..parsed.text.len(), limits),
    };
    spans
        .into_iter()
        .zip(0..)
        .filter_map(|(span, index)| {
            let text = parsed.text.get(span.start..span.core.end)?.to_owned();
            Some(Piece {
                index,
                text,
                core: span.core,
            })
        })
        .collect()
}

/// How many tokens a text is, for limits and usage. Loads the table of tokens on first use (a third of a second).
#[must_use]
pub fn tokens(text: &str) -> u64 {
    u64::try_from(count(text)).unwrap_or(u64::MAX)
}

/// A core, and where the piece starts with its overlap.
struct Span {
    start: usize,
    core: Range<usize>,
}

struct Tokens;

impl ChunkSizer for Tokens {
    fn size(&self, chunk: &str) -> usize {
        count(chunk)
    }
}

fn count(text: &str) -> usize {
    static TABLE: LazyLock<&'static CoreBPE> = LazyLock::new(tiktoken_rs::o200k_base_singleton);
    // A single word of megabytes costs the square of its length: never counted in one go.
    runs::cut(text).map(|part| TABLE.count_ordinary(part)).sum()
}

/// Cores of a stretch of the text, each but the first with its overlap.
fn prose(text: &str, within: Range<usize>, limits: &ChunkLimits) -> Vec<Span> {
    let core_tokens_max = limits.tokens_max.saturating_sub(limits.overlap_tokens_max).max(1);
    let splitter = TextSplitter::new(ChunkConfig::new(core_tokens_max).with_sizer(Tokens));
    let mut spans: Vec<Span> = Vec::new();
    let mut at = within.start;
    for part in runs::cut(text.get(within).unwrap_or_default()) {
        for (offset, core) in splitter.chunk_indices(part) {
            let core = at + offset..at + offset + core.len();
            let start = spans
                .last()
                .map_or(core.start, |before| overlap::start(text, &before.core, &core, limits));
            spans.push(Span { start, core });
        }
        at += part.len();
    }
    spans
}

/// As many whole rows as fit in a piece; a row that does not fit in one is cut like prose.
fn rows(text: &str, table: &Table, limits: &ChunkLimits) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let (mut open, mut open_tokens): (Option<Range<usize>>, usize) = (None, 0);
    for row in table.rows.iter().map(|row| &row.at).filter(|at| !at.is_empty()) {
        // One more for the line's end.
        let row_tokens = count(text.get(row.clone()).unwrap_or_default()) + 1;
        match &mut open {
            Some(open) if open_tokens + row_tokens <= limits.tokens_max => {
                open.end = row.end;
                open_tokens += row_tokens;
            }
            _ => {
                close(text, open.replace(row.clone()), limits, &mut spans);
                open_tokens = row_tokens;
            }
        }
    }
    close(text, open, limits, &mut spans);
    spans
}

fn close(text: &str, rows: Option<Range<usize>>, limits: &ChunkLimits, spans: &mut Vec<Span>) {
    let Some(rows) = rows else { return };
    if count(text.get(rows.clone()).unwrap_or_default()) <= limits.tokens_max {
        spans.push(Span {
            start: rows.start,
            core: rows,
        });
    } else {
        spans.extend(prose(text, rows, limits));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{parse::Row, service::FileType};

    fn document(text: &str) -> Parsed {
        Parsed {
            file_type: FileType::Txt,
            text: text.to_owned(),
            pages: Vec::new(),
            records: None,
        }
    }

    /// What holds of every cutting: nothing lost, nothing too long, overlaps are of the piece before.
    fn check(parsed: &Parsed, limits: &ChunkLimits) -> Vec<Piece> {
        let pieces = chunk(parsed, limits);
        let mut end = 0;
        for (piece, index) in pieces.iter().zip(0..) {
            assert_eq!(piece.index, index);
            assert!(
                count(&piece.text) <= limits.tokens_max,
                "piece {index} has {} tokens",
                count(&piece.text)
            );
            assert!(
                parsed.text[end..piece.core.start].trim().is_empty(),
                "lost before piece {index}"
            );
            assert!(piece.text.ends_with(&parsed.text[piece.core.clone()]));
            end = piece.core.end;
        }
        assert!(parsed.text[end..].trim().is_empty(), "lost at the end");
        pieces
    }

    fn paragraphs(count: usize) -> String {
        let paragraph = |i| {
            format!(
                "Paragraph {i} tells of the lamp. It is bright, it is warm, and it lasts for {i} years. Nobody returns it."
            )
        };
        (0..count).map(paragraph).collect::<Vec<_>>().join("\n\n")
    }

    #[test]
    fn neighbours_share_thirty_to_fifty_tokens() {
        let parsed = document(&paragraphs(200));
        let pieces = check(&parsed, &ChunkLimits::default());
        assert!(pieces.len() > 5);
        for piece in pieces.iter().skip(1) {
            let shared = count(
                &parsed.text
                    [piece.core.start + parsed.text[piece.core.clone()].len() - piece.text.len()..piece.core.start],
            );
            assert!((30..=51).contains(&shared), "piece {} shares {shared}", piece.index);
        }
    }

    #[test]
    fn pieces_begin_with_sentences() {
        for piece in check(&document(&paragraphs(100)), &ChunkLimits::default()) {
            assert!(
                ["Paragraph", "It is", "Nobody"]
                    .iter()
                    .any(|start| piece.text.starts_with(start)),
                "{}",
                piece.text
            );
        }
    }

    #[test]
    fn words_without_an_end_are_cut_all_the_same() {
        for text in [
            "x".repeat(50_000),
            "好".repeat(20_000),
            "👩‍👩‍👧‍👦".repeat(3_000),
            "ab ".repeat(30_000),
        ] {
            check(&document(&text), &ChunkLimits::default());
        }
    }

    #[test]
    fn tables_are_cut_between_rows() {
        let row = |i: usize| format!("name: Lamp {i}; price: {i} euros; colour: red");
        let mut table = Table {
            header: Vec::new(),
            rows: Vec::new(),
        };
        let mut text = String::new();
        for i in 0..500 {
            let start = text.len();
            text.push_str(&if i == 250 { row(i).repeat(200) } else { row(i) });
            table.rows.push(Row {
                values: Vec::new(),
                at: start..text.len(),
            });
            text.push('\n');
        }
        let parsed = Parsed {
            file_type: FileType::Csv,
            text,
            pages: Vec::new(),
            records: Some(table),
        };
        let pieces = check(&parsed, &ChunkLimits::default());
        assert!(
            pieces
                .iter()
                .filter(|piece| piece.text.starts_with("name: Lamp"))
                .count()
                > pieces.len() / 2
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn no_text_is_lost_or_too_long(text in "(\\PC{0,400}[ \n\r.。]{0,3}){0,12}", tokens_max in 20..80_usize) {
            check(&document(&text), &ChunkLimits { tokens_max, overlap_tokens_max: tokens_max / 10 });
        }
    }
}
