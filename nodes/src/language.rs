//! Which language a text is written in, and what words of it are the same to a search.
//!
//! A knowledge base has one [`Language`] for all its documents, set or [detected](detect) at the first ingest: documents
//! and questions meet only when the same [`Analyzer`] has made terms of both.

mod analyzer;
mod grammar;
mod script;
mod table;

use std::{fmt, str::FromStr};

use table::{ENTRIES, Entry};

pub use analyzer::{Analyzer, Term};

/// Code of "no language known": words are searched as they stand.
const UNDETERMINED_CODE: &str = "und";

/// Characters read at each of three places of a text to detect its language; more of it changes no answer.
const WINDOW_CHARS: usize = 2_000;

/// Fewest letters that make a language recognizable by them: below it, names and numbers outweigh grammar.
const SAMPLE_LETTERS_MIN: usize = 24;

/// Fewest letters of a sentence whose small words may tell its language.
const SENTENCE_LETTERS_MIN: usize = 12;

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

/// The language a text is written in, [`Language::UNDETERMINED`] when the text does not tell. Of a long text the
/// beginning, the middle and the end are read and most votes win, so that a foreign cover page does not decide.
///
/// ```
/// use stepgraph_nodes::language::detect;
/// assert_eq!(detect("Die Garantie gilt zwei Jahre ab dem Tag, an dem das Gerät gekauft wurde.").code(), "de");
/// assert_eq!(detect("4711 / 0815").code(), "und");
/// ```
#[must_use]
pub fn detect(text: &str) -> Language {
    let votes: Vec<Language> = samples(text).iter().filter_map(|sample| told_by(sample)).collect();
    let count = |language: Language| votes.iter().filter(|vote| **vote == language).count();
    let winner = votes.iter().copied().max_by_key(|language| count(*language));
    let winner = winner.filter(|winner| {
        votes
            .iter()
            .all(|other| other == winner || count(*other) < count(*winner))
    });
    winner.unwrap_or(Language::UNDETERMINED)
}

/// The whole of a short text, three windows of a long one.
fn samples(text: &str) -> Vec<String> {
    let chars = text.chars().count();
    if chars <= WINDOW_CHARS * 3 {
        return vec![text.to_owned()];
    }
    let starts = [0, (chars - WINDOW_CHARS) / 2, chars - WINDOW_CHARS];
    starts
        .map(|start| text.chars().skip(start).take(WINDOW_CHARS).collect())
        .into()
}

/// The language of one sample, `None` where it is too short or too mixed to be sure. A sentence or two seldom have letters
/// enough to tell: its small words do then.
fn told_by(sample: &str) -> Option<Language> {
    let letters = sample
        .chars()
        .filter(|c| c.is_alphabetic())
        .map(script::letters)
        .sum::<usize>();
    if letters < SENTENCE_LETTERS_MIN {
        return None;
    }
    let info = whatlang::detect(sample)?;
    let guess = ENTRIES.iter().find(|entry| entry.detected == Some(info.lang()));
    let entry = if letters >= SAMPLE_LETTERS_MIN && info.is_reliable() {
        guess
    } else {
        grammar::told_by_words(sample, guess)
    };
    entry.map(|entry| Language(Some(entry)))
}

fn supported() -> String {
    ENTRIES.iter().map(|entry| entry.code).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "language/tests.rs"]
mod tests;
