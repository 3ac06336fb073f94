//! Stretches without a space, which splitters and tokenizers take very long over.

/// Characters without white space that are still handed over as one.
const RUN_MAX: usize = 2_000;

/// The text in parts, cut only inside runs of more than [`RUN_MAX`] characters without white space: after the last
/// sentence end of the run's stretch if it has one (Chinese and Japanese are written so), else where it is full.
pub(super) fn cut(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, after) = rest.split_at(first_cut(rest).unwrap_or(rest.len()));
        rest = after;
        Some(part)
    })
}

fn first_cut(text: &str) -> Option<usize> {
    // Shorter in bytes is shorter in characters: most texts end here.
    if text.len() <= RUN_MAX {
        return None;
    }
    let (mut run, mut sentence_end) = (0_usize, None);
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            (run, sentence_end) = (0, None);
            continue;
        }
        if run >= RUN_MAX && !joins(c) {
            return Some(sentence_end.unwrap_or(at));
        }
        run += 1;
        if matches!(c, '。' | '！' | '？' | '．' | '｡' | '.' | '!' | '?' | ';') {
            sentence_end = Some(at + c.len_utf8());
        }
    }
    None
}

/// Whether a character belongs to the one before it, so that no cut falls between them. One that is cut off for lack
/// of a better place in a run of nothing else does no harm.
fn joins(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_text_and_no_run_is_long() {
        for text in [
            String::new(),
            "word ".repeat(5_000),
            "x".repeat(9_001),
            format!("{}。", "字".repeat(900)).repeat(7),
        ] {
            let parts: Vec<_> = cut(&text).collect();
            assert_eq!(parts.concat(), text);
            assert!(
                parts
                    .iter()
                    .all(|part| part.split_whitespace().all(|run| run.chars().count() <= RUN_MAX))
            );
        }
    }

    #[test]
    fn a_run_is_cut_after_a_sentence() {
        let text = format!("{}。", "字".repeat(900)).repeat(7);
        assert!(cut(&text).all(|part| part.ends_with('。')));
    }
}
