//! Keeping links, running markup and false references out of an answer.

mod piece;
mod target;
mod trigger;

use piece::{Piece, Reading};

use crate::domains::Domains;

/// A filter over an answer's text:
///
/// - an address (`https://..`, `//..`, `www...`) whose host is none of the tenant's becomes `[link removed]`, or `#` where it
///   is the target of a link or an image; hosts are read as browsers read them, also where the target is written in character
///   references, escapes or backslashes;
/// - elements that run or load (`<script`, `<img`, any with a handler) and schemes that run (`javascript:`) are broken up by
///   a blank; other markup is text and stays;
/// - `[passage 2]` is taken out and remembered if there is such a passage, `[chunk:..]` and `【..†..】` are taken out.
#[derive(Debug)]
pub struct Markup {
    hosts: Domains,
    passages: usize,
    cited: Vec<usize>,
    pending: String,
    /// The last character that was shown.
    before: Option<char>,
    /// Inside an address that is too long to be one: what follows up to its end is left out.
    is_skipping: bool,
}

impl Markup {
    /// A filter that lets links to `hosts` pass and knows the passages 1 to `passages`.
    #[must_use]
    pub const fn new(hosts: Domains, passages: usize) -> Self {
        Self {
            hosts,
            passages,
            cited: Vec::new(),
            pending: String::new(),
            before: None,
            is_skipping: false,
        }
    }

    /// Takes the next piece and gives what may be shown by now.
    pub fn push(&mut self, piece: &str) -> String {
        self.pending.push_str(piece);
        self.advance(false)
    }

    /// Gives what was still held back.
    pub fn finish(&mut self) -> String {
        self.advance(true)
    }

    /// The passages named so far, each once.
    #[must_use]
    pub fn cited(&self) -> &[usize] {
        &self.cited
    }

    fn advance(&mut self, is_last: bool) -> String {
        let pending = std::mem::take(&mut self.pending);
        let mut shown = String::with_capacity(pending.len());
        let mut rest = pending.as_str();
        while !rest.is_empty() {
            if self.is_skipping {
                let end = rest.find(piece::ends_address);
                self.is_skipping = end.is_none();
                rest = end.and_then(|end| rest.get(end..)).unwrap_or_default();
                continue;
            }
            let Some(at) = trigger::first(rest) else {
                show(rest, &mut self.before, &mut shown);
                break;
            };
            let (plain, from) = rest.split_at(at);
            show(plain, &mut self.before, &mut shown);
            let reading = Reading {
                text: from,
                before: self.before,
                is_last,
                hosts: &self.hosts,
            };
            match piece::read(&reading) {
                Piece::Waits => {
                    from.clone_into(&mut self.pending);
                    break;
                }
                Piece::Shown { bytes, text } => {
                    show(&text, &mut self.before, &mut shown);
                    rest = from.get(bytes..).unwrap_or_default();
                }
                Piece::Endless { text } => {
                    show(text, &mut self.before, &mut shown);
                    self.is_skipping = true;
                    rest = "";
                }
                Piece::Cites { bytes, passages } => {
                    self.cite(&passages);
                    rest = from.get(bytes..).unwrap_or_default();
                }
            }
        }
        shown
    }

    fn cite(&mut self, passages: &[usize]) {
        for passage in passages {
            if (1..=self.passages).contains(passage) && !self.cited.contains(passage) {
                self.cited.push(*passage);
            }
        }
    }
}

fn show(text: &str, before: &mut Option<char>, shown: &mut String) {
    shown.push_str(text);
    *before = text.chars().next_back().or(*before);
}

/// A whole text, such as a title or an excerpt, as it may be shown.
#[must_use]
pub fn readable(text: &str, hosts: &Domains) -> String {
    let mut markup = Markup::new(hosts.clone(), 0);
    let mut shown = markup.push(text);
    shown.push_str(&markup.finish());
    shown
}
