//! Cutting a passage into sentences, with what each stands under.

use unicode_segmentation::UnicodeSegmentation;

/// A line this long is taken to go on in the next one, where a file was broken into lines.
const WRAPPED_LINE_CHARS_MIN: usize = 45;

/// A heading has at most so many words.
const HEADING_WORDS_MAX: usize = 9;

/// No sentence is longer; what is (a table without stops) is cut between words.
const SENTENCE_CHARS_MAX: usize = 500;

/// A full stop behind one of these ends no sentence.
const ABBREVIATIONS: &str = "mr. mrs. ms. dr. prof. st. nr. vs. e.g. i.e. etc. approx. incl. max. min. tel. fig. vol. inc. ltd. co. \
    ca. z.b. d.h. bzw. usw. p.ej. sr. sra. m. mme.";

/// A sentence and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sentence {
    /// Which passage it is part of.
    pub(super) passage: usize,
    /// Its words as they stand in the passage, on one line.
    pub(super) text: String,
    /// The heading or the question right above it, empty where there is none.
    pub(super) under: String,
    /// Whether it can stand as an answer: headings and questions cannot.
    pub(super) answers: bool,
}

/// The sentences of the passage that is number `passage`, in reading order.
pub(super) fn split(passage: usize, text: &str) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let (mut heading, mut question) = (String::new(), String::new());
    for line in joined_lines(text) {
        if is_heading(&line) {
            line.trim_start_matches(['#', ' ', '*']).clone_into(&mut heading);
            question.clear();
            sentences.push(Sentence {
                passage,
                text: line,
                under: String::new(),
                answers: false,
            });
            continue;
        }
        for text in sentences_of(&line) {
            let asks = text.ends_with(['?', '\u{ff1f}']);
            let under = format!("{heading} {question}").trim().to_owned();
            if asks {
                question.clone_from(&text);
            }
            sentences.push(Sentence {
                passage,
                text,
                under,
                answers: !asks,
            });
        }
    }
    sentences
}

/// The lines of a text, those put together again that were only broken to fit a page.
fn joined_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match lines.last_mut() {
            Some(last) if goes_on && !line.is_empty() && !begins_item(&line) => {
                last.push(' ');
                last.push_str(&line);
            }
            _ if line.is_empty() => {}
            _ => lines.push(line.clone()),
        }
        goes_on = line.chars().count() >= WRAPPED_LINE_CHARS_MIN && !ends_sentence(&line);
    }
    lines
}

fn begins_item(line: &str) -> bool {
    line.starts_with(['-', '*', '\u{2022}', '\u{2013}', '#', '|'])
        || line
            .split_once(['.', ')'])
            .is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

fn ends_sentence(line: &str) -> bool {
    line.ends_with(['.', '!', '?', ':', ';', '\u{3002}', '\u{ff01}', '\u{ff1f}'])
}

fn is_heading(line: &str) -> bool {
    let named = line.starts_with('#');
    let bare = !ends_sentence(line)
        && !line.contains([':', '|', ';', '=', ','])
        && !line.chars().any(|c| c.is_ascii_digit() && !begins_item(line));
    named || (bare && !begins_item(line) && line.unicode_words().count() <= HEADING_WORDS_MAX)
}

fn sentences_of(line: &str) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    let mut open = String::new();
    for piece in line.split_sentence_bounds() {
        open.push_str(piece);
        if !ends_in_abbreviation(&open) {
            sentences.extend(pieces_of_bearable_length(open.trim()));
            open.clear();
        }
    }
    sentences.extend(pieces_of_bearable_length(open.trim()));
    sentences
}

fn ends_in_abbreviation(text: &str) -> bool {
    let last = text.split_whitespace().next_back().unwrap_or_default().to_lowercase();
    let initial = last.chars().count() == 2 && last.ends_with('.') && last.starts_with(char::is_alphabetic);
    initial
        || ABBREVIATIONS
            .split_whitespace()
            .any(|abbreviation| abbreviation == last.trim_start_matches(['(', '"']))
}

fn pieces_of_bearable_length(sentence: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in sentence.split_whitespace() {
        match pieces.last_mut() {
            Some(piece) if piece.chars().count() + 1 + word.chars().count() <= SENTENCE_CHARS_MAX => {
                piece.push(' ');
                piece.push_str(word);
            }
            _ => pieces.push(word.to_owned()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split(0, text).into_iter().map(|sentence| sentence.text).collect()
    }

    #[test]
    fn lines_broken_to_fit_a_page_are_one_sentence() {
        let text =
            "The warranty period of the kettle is twenty-four\nmonths from the date of purchase. Keep the receipt.";

        assert_eq!(
            texts(text),
            [
                "The warranty period of the kettle is twenty-four months from the date of purchase.",
                "Keep the receipt."
            ]
        );
    }

    #[test]
    fn items_of_a_list_and_fields_of_a_record_stay_apart() {
        assert_eq!(
            texts("- red and blue\n- green\nWeight: 2 kg\nPrice: 40 EUR"),
            ["- red and blue", "- green", "Weight: 2 kg", "Price: 40 EUR"]
        );
    }

    #[test]
    fn an_abbreviation_ends_no_sentence() {
        assert_eq!(
            texts("Ask Dr. Smith, e.g. Mondays. He is in."),
            ["Ask Dr. Smith, e.g. Mondays.", "He is in."]
        );
    }

    #[test]
    fn a_sentence_knows_the_heading_and_the_question_above_it() {
        let sentences = split(0, "Returns and refunds\nHow long do I have? 30 days.");

        let last = sentences.last().unwrap();
        assert_eq!(
            (last.text.as_str(), last.under.as_str(), last.answers),
            ("30 days.", "Returns and refunds How long do I have?", true)
        );
        assert!(sentences.iter().rev().skip(1).all(|sentence| !sentence.answers));
    }

    #[test]
    fn sentences_of_other_scripts_are_parted_at_their_own_stops() {
        assert_eq!(
            texts("退款将在五个工作日内处理。请保留收据。"),
            ["退款将在五个工作日内处理。", "请保留收据。"]
        );
    }

    #[test]
    fn a_text_without_stops_is_cut_between_words() {
        let table = "cell ".repeat(500);

        assert!(texts(&table).iter().all(|piece| piece.len() <= SENTENCE_CHARS_MAX));
        assert_eq!(texts(&table).join(" "), table.trim());
    }
}
