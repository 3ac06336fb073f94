//! Stretches without a space or without a line's end, which splitters and tokenizers take the square of their length
//! over.

/// Characters without white space that are still handed over as one.
const RUN_MAX: usize = 2_000;
/// Characters without a line's end that are still handed over as one.
const LINE_MAX: usize = 20_000;

/// The text in parts, cut only where it must be: a long line before a space (after a sentence if it has one), and a
/// run without spaces after the last sentence end in it (Chinese and Japanese are written so), else where it is full.
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
    let (mut run, mut run_sentence) = (0_usize, None);
    let (mut line, mut line_space, mut line_sentence) = (0_usize, None, None);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        line += 1;
        if c == '\n' {
            (line, line_space, line_sentence) = (0, None, None);
        }
        if c.is_whitespace() {
            (run, run_sentence) = (0, None);
            if at > 0 && c != '\n' {
                line_space = Some(at);
                line_sentence = if ends_sentence(before) { Some(at) } else { line_sentence };
            }
        } else {
            if run >= RUN_MAX && !joins(c) {
                return Some(run_sentence.unwrap_or(at));
            }
            run += 1;
            if ends_sentence(c) {
                run_sentence = Some(at + c.len_utf8());
            }
        }
        if line >= LINE_MAX && line_space.is_some() {
            return line_sentence.or(line_space);
        }
        before = c;
    }
    None
}

fn ends_sentence(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '．' | '｡' | '.' | '!' | '?' | ';')
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
    fn a_long_line_is_cut_after_a_sentence() {
        let text = "Seven words stand in each of these. ".repeat(3_000);
        let parts: Vec<_> = cut(&text).collect();
        assert_eq!(parts.concat(), text);
        assert!(
            parts
                .iter()
                .all(|part| part.chars().count() <= LINE_MAX && part.trim_end().ends_with('.'))
        );
    }

    #[test]
    fn a_run_is_cut_after_a_sentence() {
        let text = format!("{}。", "字".repeat(900)).repeat(7);
        assert!(cut(&text).all(|part| part.ends_with('。')));
    }
}
