//! What a chunk is indexed under.

use std::collections::BTreeMap;

use crate::{language::Analyzer, service::Chunk};

/// A chunk's terms, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Indexed {
    /// How many terms there are, repeated ones included.
    pub(super) length: u32,
    /// How often each occurs.
    pub(super) terms: BTreeMap<String, u16>,
}

impl Indexed {
    /// The terms of text and title. A title's term counts once, and only where the text lacks it: so a chunk from the
    /// middle of a document is found by the document's name, and a text that repeats its title gains nothing by it.
    pub(super) fn new(analyzer: &Analyzer, chunk: &Chunk) -> Self {
        let mut terms: BTreeMap<String, u16> = BTreeMap::new();
        let mut length = 0_u32;
        for term in analyzer.terms(&chunk.text) {
            let occurrences = terms.entry(term.text).or_default();
            *occurrences = occurrences.saturating_add(1);
            length = length.saturating_add(1);
        }
        for term in analyzer.terms(&chunk.title) {
            terms.entry(term.text).or_insert_with(|| {
                length = length.saturating_add(1);
                1
            });
        }
        Self { length, terms }
    }

    /// The terms as they are kept beside the chunk; none holds a space.
    pub(super) fn listed(&self) -> String {
        let terms: Vec<&str> = self.terms.keys().map(String::as_str).collect();
        terms.join(" ")
    }
}
