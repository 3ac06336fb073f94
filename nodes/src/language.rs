//! Which language a text is written in, and what words of it are the same to a search.
//!
//! A knowledge base has one [`Language`] for all its documents, set or [detected](detect) at the first ingest: documents
//! and questions meet only when the same [`Analyzer`] has made terms of both.

mod analyzer;
mod script;
mod table;

use std::{fmt, str::FromStr};

use table::{ENTRIES, Entry};

pub use analyzer::{Analyzer, Term};

/// Code of "no language known": words are searched as they stand.
const UNDETERMINED_CODE: &str = "und";

/// Most characters of a text that are read to detect its language; more of it changes no answer.
const SAMPLE_CHARS_MAX: usize = 6_000;

/// Fewest letters that make a language recognizable: below it, names and numbers outweigh grammar.
const SAMPLE_LETTERS_MIN: usize = 24;

/// A language that texts can be analysed in, or none.
#[derive(Clone, Copy)]
pub struct Language(Option<&'static Entry>);

/// A code that names no supported language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{code}` is not a supported language: use one of {}, or `und` for none",
    supported()
)]
pub struct UnknownLanguage {
    code: String,
}

impl Language {
    /// No language: no stemming and no stop words, for mixed or unknown texts.
    pub const UNDETERMINED: Self = Self(None);

    /// The language of an ISO 639-1 code, in any case. A region is ignored (`pt-BR`, `zh_CN`); `nb` and `nn` are `no`.
    ///
    /// ```
    /// use stepgraph_nodes::language::Language;
    /// assert_eq!(Language::parse("pt-BR")?.code(), "pt");
    /// assert!(Language::parse("klingon").unwrap_err().to_string().contains("use one of af, ak, am, ar"));
    /// # Ok::<(), stepgraph_nodes::language::UnknownLanguage>(())
    /// ```
    pub fn parse(code: &str) -> Result<Self, UnknownLanguage> {
        let primary = code.split(['-', '_']).next().unwrap_or(code).to_ascii_lowercase();
        match primary.as_str() {
            UNDETERMINED_CODE => return Ok(Self::UNDETERMINED),
            "nb" | "nn" => return Self::parse("no"),
            _ => {}
        }
        let found = ENTRIES.iter().find(|entry| entry.code == primary);
        found
            .map(|entry| Self(Some(entry)))
            .ok_or_else(|| UnknownLanguage { code: code.to_owned() })
    }

    /// The ISO 639-1 code, `und` for none.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.map_or(UNDETERMINED_CODE, |entry| entry.code)
    }

    /// Every language there is, by code.
    pub fn all() -> impl Iterator<Item = Self> {
        ENTRIES.iter().map(|entry| Self(Some(entry)))
    }

    pub(crate) fn entry(self) -> Option<&'static Entry> {
        self.0
    }
}

impl PartialEq for Language {
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

impl Eq for Language {}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Language({})", self.code())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Self::parse(code)
    }
}

/// The language a text is written in, [`Language::UNDETERMINED`] when the text does not tell. Reads a sample from the
/// beginning, the middle and the end of long texts, so that a foreign cover page does not decide alone.
///
/// ```
/// use stepgraph_nodes::language::detect;
/// assert_eq!(detect("Die Garantie gilt zwei Jahre ab dem Tag, an dem das Gerät gekauft wurde.").code(), "de");
/// assert_eq!(detect("4711 / 0815").code(), "und");
/// ```
#[must_use]
pub fn detect(text: &str) -> Language {
    let sample = sample(text);
    if sample
        .chars()
        .filter(|c| c.is_alphabetic())
        .map(script::letters)
        .sum::<usize>()
        < SAMPLE_LETTERS_MIN
    {
        return Language::UNDETERMINED;
    }
    let info = whatlang::detect(&sample).filter(whatlang::Info::is_reliable);
    let entry = info.and_then(|info| ENTRIES.iter().find(|entry| entry.detected == Some(info.lang())));
    Language(entry)
}

/// At most [`SAMPLE_CHARS_MAX`] characters: all of a short text, three equal windows of a long one.
fn sample(text: &str) -> String {
    let chars = text.chars().count();
    if chars <= SAMPLE_CHARS_MAX {
        return text.to_owned();
    }
    let window = SAMPLE_CHARS_MAX / 3;
    let windows = [0, (chars - window) / 2, chars - window];
    let read = |start: usize| text.chars().skip(start).take(window).collect::<String>();
    windows.map(read).join(" ")
}

fn supported() -> String {
    ENTRIES.iter().map(|entry| entry.code).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "language/tests.rs"]
mod tests;
