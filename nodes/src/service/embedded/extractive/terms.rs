//! The meaning-bearing terms of a text.

use std::collections::HashSet;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;
use whatlang::Lang;

/// Function words of English. The lists of other languages come from a crate; its English one holds words such as `open`,
/// `order` and `number`, without which many a question has nothing left.
const ENGLISH_FUNCTION_WORDS: &str = "a about after again all also am an and any are as at be been being both but by can could \
    did do does doing done during each few for from further had has have having he her here hers him his how i if in into is it \
    its just let like many may me might more most much must my no nor not of off on once one only or other our ours out over own \
    please same shall she should so some such tell than that the their theirs them then there these they thing things this those \
    through to too under until up us very was we were what when where which while who whom whose why will with would you your \
    yours s t d ll m re ve don doesn didn isn aren wasn weren won't can't couldn't wouldn't don't doesn't didn't i'm it's what's \
    who's where's how's there's long get got give know want need";

/// Texts shorter than this are too short to tell their language by.
const DETECTABLE_BYTES_MIN: usize = 60;

/// Turns texts of one language into terms.
pub(super) struct Terms {
    stemmer: Option<Stemmer>,
    function_words: HashSet<String>,
}

impl Terms {
    /// For texts in the language of `sample`; English where it cannot be told.
    pub(super) fn like(sample: &str) -> Self {
        let detected = (sample.len() >= DETECTABLE_BYTES_MIN)
            .then(|| whatlang::detect(sample))
            .flatten();
        let language = detected
            .filter(whatlang::Info::is_reliable)
            .map_or(Lang::Eng, |info| info.lang());
        let function_words = match language {
            Lang::Eng => ENGLISH_FUNCTION_WORDS.split_whitespace().map(str::to_owned).collect(),
            other => list_of(other).iter().map(|word| (*word).to_lowercase()).collect(),
        };
        Self {
            stemmer: algorithm(language).map(Stemmer::create),
            function_words,
        }
    }

    /// The terms of a text, in its order, with repeats: lower case, without function words, stemmed. In scripts that do not
    /// part words by blanks, a term is a pair of neighbouring characters.
    pub(super) fn of(&self, text: &str) -> Vec<String> {
        let lower = text.to_lowercase();
        let mut terms = Vec::new();
        let mut unparted: Option<char> = None;
        for word in lower.unicode_words() {
            let mut characters = word.chars();
            match (characters.next(), characters.next()) {
                (Some(only), None) if is_unparted(only) => {
                    terms.extend(unparted.map(|before| [before, only].iter().collect::<String>()));
                    unparted = Some(only);
                    continue;
                }
                _ => unparted = None,
            }
            let plain = word.replace('\u{2019}', "'");
            let plain = plain.strip_suffix("'s").unwrap_or(&plain);
            if !self.function_words.contains(plain) {
                terms.push(
                    self.stemmer
                        .as_ref()
                        .map_or_else(|| plain.to_owned(), |stemmer| stemmer.stem(plain).into_owned()),
                );
            }
        }
        terms
    }
}

/// Whether a character belongs to a script whose words are not parted by blanks.
fn is_unparted(c: char) -> bool {
    matches!(c, '\u{0e00}'..='\u{0e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

const fn algorithm(language: Lang) -> Option<Algorithm> {
    Some(match language {
        Lang::Eng => Algorithm::English,
        Lang::Spa => Algorithm::Spanish,
        Lang::Fra => Algorithm::French,
        Lang::Deu => Algorithm::German,
        Lang::Ita => Algorithm::Italian,
        Lang::Por => Algorithm::Portuguese,
        Lang::Nld => Algorithm::Dutch,
        Lang::Rus => Algorithm::Russian,
        Lang::Swe => Algorithm::Swedish,
        Lang::Dan => Algorithm::Danish,
        Lang::Fin => Algorithm::Finnish,
        Lang::Hun => Algorithm::Hungarian,
        Lang::Ron => Algorithm::Romanian,
        Lang::Tur => Algorithm::Turkish,
        Lang::Ara => Algorithm::Arabic,
        Lang::Ell => Algorithm::Greek,
        _ => return None,
    })
}

fn list_of(language: Lang) -> &'static [&'static str] {
    match language {
        Lang::Spa => stop_words::get("es"),
        Lang::Fra => stop_words::get("fr"),
        Lang::Deu => stop_words::get("de"),
        Lang::Ita => stop_words::get("it"),
        Lang::Por => stop_words::get("pt"),
        Lang::Nld => stop_words::get("nl"),
        Lang::Rus => stop_words::get("ru"),
        Lang::Swe => stop_words::get("sv"),
        Lang::Dan => stop_words::get("da"),
        Lang::Fin => stop_words::get("fi"),
        Lang::Hun => stop_words::get("hu"),
        Lang::Ron => stop_words::get("ro"),
        Lang::Tur => stop_words::get("tr"),
        Lang::Ara => stop_words::get("ar"),
        Lang::Ell => stop_words::get("el"),
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_stems_without_function_words() {
        assert_eq!(
            Terms::like("").of("How do I return the ordered products?"),
            ["return", "order", "product"]
        );
        assert_eq!(Terms::like("").of("What's the café's warranty?"), ["café", "warranti"]);
    }

    #[test]
    fn a_script_without_blanks_gives_pairs_of_characters() {
        assert_eq!(Terms::like("").of("退款将 API"), ["退款", "款将", "api"]);
    }

    #[test]
    fn function_words_are_those_of_the_sample_s_language() {
        let spanish = Terms::like(
            "La garantía del producto dura dos años desde la fecha de compra en la tienda, y cubre las piezas.",
        );

        assert_eq!(spanish.of("¿Cuánto dura la garantía?"), spanish.of("dura garantía"));
    }
}
