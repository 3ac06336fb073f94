//! Words that hold a sentence together, over all languages that list them.
//!
//! They tell the language of a sentence that is too short for its letters to tell it, and they are what a question of
//! unknown language is not about.

use std::{collections::HashMap, sync::LazyLock};

use super::{
    analyzer::normalized,
    table::{ENTRIES, Entry},
};

/// Letters of a word that tells its language though it is the only one; shorter ones stand in many texts by chance.
const TELLING_LETTERS: usize = 3;

/// Languages by whose lists a word of unknown language is judged: those in which questions are asked most often. A word of
/// theirs is seldom what a question in another language is about.
const COMMON: [&str; 7] = ["en", "de", "es", "fr", "it", "nl", "pt"];

/// The places in [`ENTRIES`] of the languages that list a word.
static LISTED: LazyLock<HashMap<String, Vec<usize>>> = LazyLock::new(|| {
    let mut listed: HashMap<String, Vec<usize>> = HashMap::new();
    let entries = ENTRIES.iter().enumerate().filter(|(_, entry)| entry.has_stop_words);
    for (place, entry) in entries {
        let words = stop_words::get(entry.code).iter();
        for word in words.filter(|word| word.contains(char::is_alphabetic)) {
            let places = listed.entry(normalized(word)).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }
    listed
});

/// The language whose words a text holds most of. Where several have as many it is the one that is asked in most often, and
/// between several of those the letters decide; `guess` is
/// what they look like among all languages, and confirms a single short word.
pub(super) fn told_by_words(text: &str, guess: Option<&'static Entry>) -> Option<&'static Entry> {
    let words = normalized(text);
    let mut words: Vec<&str> = words.split(|c: char| !c.is_alphanumeric()).collect();
    words.sort_unstable();
    words.dedup();
    let mut counts = vec![0_usize; ENTRIES.len()];
    let mut longest = 0;
    for (word, places) in words.into_iter().filter_map(|word| Some((word, LISTED.get(word)?))) {
        longest = longest.max(word.chars().count());
        for place in places {
            if let Some(count) = counts.get_mut(*place) {
                *count += 1;
            }
        }
    }
    let most = counts.iter().copied().max().filter(|most| *most > 0)?;
    let listed = ENTRIES.iter().zip(counts).filter(|(_, count)| *count == most);
    let first: Vec<&'static Entry> = listed.map(|(entry, _)| entry).collect();
    let is_guessed = |entry: &Entry| guess.is_some_and(|guess| guess.code == entry.code);
    match first.as_slice() {
        [alone] => (most > 1 || longest >= TELLING_LETTERS || is_guessed(alone)).then_some(alone),
        several => {
            let common: Vec<_> = several.iter().copied().filter(|entry| is_asked_in(entry)).collect();
            match common.as_slice() {
                [] => by_letters(text, several),
                [alone] => Some(alone),
                common => by_letters(text, common),
            }
        }
    }
}

fn by_letters(text: &str, entries: &[&'static Entry]) -> Option<&'static Entry> {
    let langs = entries.iter().filter_map(|entry| entry.detected).collect();
    let told = whatlang::Detector::with_allowlist(langs).detect_lang(text)?;
    entries.iter().copied().find(|entry| entry.detected == Some(told))
}

fn is_asked_in(entry: &Entry) -> bool {
    COMMON.contains(&entry.code)
}

/// Whether a word, in lower case, holds sentences together in one of the languages asked in most often.
pub(super) fn is_common(word: &str) -> bool {
    let mut entries = LISTED
        .get(word)
        .into_iter()
        .flatten()
        .filter_map(|place| ENTRIES.get(*place));
    entries.any(is_asked_in)
}
