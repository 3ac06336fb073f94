//! What a model says, on its way to a reader: three rules that hold whatever the model was talked into.
//!
//! - No run of [`SECRET_RUN_CHARS`] characters of the system message leaves, in any case and spacing, unless the documents or
//!   the visitor said the same words, nor of its letters alone or in one of the common encodings; see [`Secrecy`].
//! - No link, image or address leads to a host that is not the tenant's, no element or scheme that could run is whole, and
//!   marks that name a passage are taken out, the true ones remembered; see [`Markup`].
//! - What cannot be seen is no part of an answer's record: that is [`prompt::visible`](crate::prompt::visible), used where
//!   a turn is logged.
//!
//! A stream is held back only as far as a rule could still apply to its end, which is a few characters at most of the time.

mod encoded;
mod markup;
mod secrecy;

pub use markup::{Markup, readable};
pub use secrecy::{SECRET_RUN_CHARS, Secrecy};

use crate::domains::Domains;

/// A filter for one answer, made for its prompt.
#[derive(Debug)]
pub struct Screen {
    secrecy: Secrecy,
    markup: Markup,
}

impl Screen {
    /// A screen that keeps `system` back, but for what `open` says too, and lets links to `hosts` pass. Passages are
    /// numbered from 1 to `passages`.
    #[must_use]
    pub fn new(system: &str, open: &[&str], hosts: Domains, passages: usize) -> Self {
        Self {
            secrecy: Secrecy::new(system, open),
            markup: Markup::new(hosts, passages),
        }
    }

    /// Takes the next piece and gives what may be shown by now.
    pub fn push(&mut self, piece: &str) -> String {
        let told = self.secrecy.push(piece);
        self.markup.push(&told)
    }

    /// Gives what was still held back.
    pub fn finish(&mut self) -> String {
        let told = self.secrecy.finish();
        let mut shown = self.markup.push(&told);
        shown.push_str(&self.markup.finish());
        shown
    }

    /// The numbers of the passages that the answer named so far, in the order of their first naming.
    #[must_use]
    pub fn cited(&self) -> &[usize] {
        self.markup.cited()
    }
}

#[cfg(test)]
mod tests;
