//! The meaning-bearing terms of a text, as search makes them, less the words that only put a question.

use std::collections::HashSet;

use crate::language::{Analyzer, Language, detect};

/// Words that say how a question is put and not what it is about, beyond the stop words of search.
const QUESTION_WORDS: &str = "long many much may might could would shall must get got give know want need please tell let like \
    cuánto cuánta cuántos cuántas cuál cuáles quién quiénes cuándo dónde cómo wie lange viel viele combien quel quelle quels quelles \
    quanto quanta quanti quante";

/// Turns texts of one language into terms.
pub(super) struct Terms {
    analyzer: Analyzer,
    question_words: HashSet<String>,
}

impl Terms {
    /// For texts in the language of `sample`; English where it cannot be told.
    pub(super) fn like(sample: &str) -> Self {
        let told = Some(detect(sample)).filter(|language| *language != Language::UNDETERMINED);
        let language = told
            .or_else(|| Language::parse("en").ok())
            .unwrap_or(Language::UNDETERMINED);
        let analyzer = Analyzer::new(language);
        let question_words = analyzer
            .terms(QUESTION_WORDS)
            .into_iter()
            .map(|term| term.text)
            .collect();
        Self {
            analyzer,
            question_words,
        }
    }

    /// The terms of a text, in its order, with repeats.
    pub(super) fn of(&self, text: &str) -> Vec<String> {
        let terms = self
            .analyzer
            .terms(text)
            .into_iter()
            .filter(|term| term.bears_meaning)
            .map(|term| term.text);
        terms.filter(|term| !self.question_words.contains(term)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_what_a_question_is_about() {
        assert_eq!(
            Terms::like("").of("How do I return the ordered products?"),
            ["return", "order", "product"]
        );
        assert_eq!(
            Terms::like("").of("How long is the warranty? I want to know"),
            ["warranti"]
        );
    }

    #[test]
    fn question_words_are_left_out_in_the_language_of_the_sample() {
        let spanish = Terms::like(
            "La garantía del producto dura dos años desde la fecha de compra en la tienda, y cubre las piezas.",
        );

        assert_eq!(spanish.of("¿Cuánto dura la garantía?"), spanish.of("dura garantía"));
    }
}
