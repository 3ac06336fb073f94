//! From text to the terms that are searched.
//!
//! A term is a word in lower case, without stop words, cut to its stem; in scripts without spaces it is each pair of
//! neighbouring characters. Words are runs of letters, digits and their marks: the word boundaries of Unicode (UAX 29)
//! keep `l'avion`, `Super_Bowl` and `v2.1` whole, which a question seldom repeats in just that form.

use std::{borrow::Cow, collections::HashSet, fmt};

use rust_stemmers::Stemmer;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark, is_nfkc_quick};

use super::{Language, grammar, script};

/// Longest word that is searched, in characters: what is longer is encoded data, and only its beginning counts.
const WORD_CHARS_MAX: usize = 64;

/// Han characters that carry grammar: a pair with one of them says nothing about the subject of a question.
const HAN_FUNCTION: &str = "的了是在吗嗎呢吧么麼什哪谁誰几幾怎和与與及或也就都而被把这這那个個之其您你我他她它们們";

/// Languages whose accents tell one common word from another, so that to drop them would mix up most of the vocabulary.
const ACCENTS_KEPT: &[&str] = &["vi"];

/// A unit of search.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// What is compared.
    pub text: String,
    /// Whether it says what a question is about, rather than how it is asked.
    pub bears_meaning: bool,
}

/// Makes terms of texts, by the rules of one language.
pub struct Analyzer {
    language: Language,
    stemmer: Option<Stemmer>,
    stop_words: HashSet<String>,
    keeps_accents: bool,
}

impl fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Analyzer")
            .field("language", &self.language)
            .finish_non_exhaustive()
    }
}

impl Analyzer {
    /// An analyzer with the language's stemmer and stop words, where it has them.
    #[must_use]
    pub fn new(language: Language) -> Self {
        let entry = language.entry();
        let listed = entry.filter(|entry| entry.has_stop_words);
        let listed = listed.map_or(&[][..], |entry| stop_words::get(entry.code));
        // Some lists name digits and signs; a number is never grammar.
        let words = listed.iter().filter(|word| word.contains(char::is_alphabetic));
        Self {
            language,
            stemmer: entry.and_then(|entry| entry.stemmer).map(Stemmer::create),
            stop_words: words.map(|word| normalized(word)).collect(),
            keeps_accents: ACCENTS_KEPT.contains(&language.code()),
        }
    }

    /// The language whose rules hold.
    #[must_use]
    pub const fn language(&self) -> Language {
        self.language
    }

    /// The terms of a text in order, repeated as often as they occur.
    ///
    /// ```
    /// use stepgraph_nodes::language::{Analyzer, Language};
    /// let english = Analyzer::new(Language::parse("en")?);
    /// let terms = english.terms("How are the Warranties handled?");
    /// assert_eq!(terms.iter().map(|term| term.text.as_str()).collect::<Vec<_>>(), ["warranti", "handl"]);
    /// # Ok::<(), stepgraph_nodes::language::UnknownLanguage>(())
    /// ```
    #[must_use]
    pub fn terms(&self, text: &str) -> Vec<Term> {
        let text = normalized(text);
        let mut terms = Vec::new();
        for word in text.split(|c: char| !(c.is_alphanumeric() || is_combining_mark(c))) {
            for run in Runs(word) {
                match run {
                    Run::Spaced(word) => terms.extend(self.word(word)),
                    Run::Unspaced(run) => bigrams(run, &mut terms),
                }
            }
        }
        terms
    }

    fn word(&self, word: &str) -> Option<Term> {
        if self.stop_words.contains(word) || !word.contains(char::is_alphanumeric) {
            return None;
        }
        let word = word
            .char_indices()
            .nth(WORD_CHARS_MAX)
            .map_or(word, |(end, _)| word.get(..end).unwrap_or(word));
        let stem = self
            .stemmer
            .as_ref()
            .map_or(Cow::Borrowed(word), |stemmer| stemmer.stem(word));
        let text = if self.keeps_accents {
            stem.into_owned()
        } else {
            without_accents(&stem)
        };
        let is_of_a_language = self.language != Language::UNDETERMINED;
        (!text.is_empty()).then(|| Term {
            bears_meaning: is_of_a_language || !grammar::is_common(word),
            text,
        })
    }
}

/// Compatibility forms made plain (ligatures of PDFs, full-width digits), invisible characters dropped, lower case.
pub(super) fn normalized(text: &str) -> String {
    let visible = text
        .chars()
        .filter(|c| !matches!(c, '\u{AD}' | '\u{200B}' | '\u{2060}' | '\u{FEFF}'));
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else if is_nfkc_quick(text.chars()) == unicode_normalization::IsNormalized::Yes {
        visible.collect::<String>().to_lowercase()
    } else {
        visible.nfkc().collect::<String>().to_lowercase()
    }
}

/// Latin and Greek letters without their accents, which visitors leave out: `cancion` finds `canción`. After stemming,
/// since stemmers read accents: before it, Spanish questions typed without accents gain nDCG@10 .002 and all others
/// lose as much. Letters of other scripts stay whole: `й` is no accented `и`.
fn without_accents(word: &str) -> String {
    if word.is_ascii()
        || word
            .chars()
            .any(|c| c >= '\u{400}' && !('\u{1E00}'..'\u{2000}').contains(&c))
    {
        return word.to_owned();
    }
    word.nfd().filter(|c| !matches!(c, '\u{300}'..='\u{36F}')).collect()
}

enum Run<'a> {
    Spaced(&'a str),
    Unspaced(&'a str),
}

/// Cuts a word where its script changes between spaced and unspaced: `iPhone手机` is two runs.
struct Runs<'a>(&'a str);

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let kind = self.0.chars().next().map(script::unspaced)?;
        let other = |(_, c): &(usize, char)| !is_combining_mark(*c) && script::unspaced(*c) != kind;
        let end = self
            .0
            .char_indices()
            .skip(1)
            .find(other)
            .map_or(self.0.len(), |(at, _)| at);
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(if kind.is_some() {
            Run::Unspaced(run)
        } else {
            Run::Spaced(run)
        })
    }
}

/// Each pair of neighbouring characters, or the one character there is.
fn bigrams(run: &str, terms: &mut Vec<Term>) {
    let ends = run.char_indices().skip(1).map(|(at, _)| at).chain([run.len()]);
    let seconds = ends.clone().skip(1);
    let starts = run.char_indices().map(|(at, _)| at);
    let before = terms.len();
    terms.extend(
        starts
            .zip(seconds)
            .filter_map(|(start, end)| run.get(start..end))
            .map(bigram),
    );
    if terms.len() == before {
        terms.push(bigram(run));
    }
}

fn bigram(text: &str) -> Term {
    let grammar = text.chars().all(script::is_hiragana) || text.chars().any(|c| HAN_FUNCTION.contains(c));
    Term {
        text: text.to_owned(),
        bears_meaning: !grammar,
    }
}
