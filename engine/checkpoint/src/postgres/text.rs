//! Texts as PostgreSQL takes them: it refuses the character NUL.

use std::borrow::Cow;

/// Stands before what is written for NUL and for itself.
const MARK: char = '\u{1}';

/// NUL becomes 1 1, and 1 becomes 1 2, which keeps the order of any two texts: all other characters are above both.
pub(super) fn written(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', MARK]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(MARK, "\u{1}\u{2}").replace('\0', "\u{1}\u{1}"))
}

/// The text that was written.
pub(super) fn read(written: String) -> String {
    if !written.contains(MARK) {
        return written;
    }
    let mut text = String::with_capacity(written.len());
    let mut characters = written.chars();
    while let Some(next) = characters.next() {
        text.push(match next {
            MARK if characters.next() == Some(MARK) => '\0',
            other => other,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{read, written};

    const TEXTS: [&str; 9] = [
        "",
        "\0",
        "\0\0",
        "\0\u{1}",
        "\u{1}",
        "\u{1}\0",
        "\u{2}",
        "a\0b\u{1}",
        "a\u{1}",
    ];

    #[test]
    fn every_text_comes_back_and_holds_no_nul_meanwhile() {
        for text in TEXTS {
            let stored = written(text);
            assert!(!stored.contains('\0'), "{text:?}");
            assert_eq!(read(stored.into_owned()), text);
        }
    }

    #[test]
    fn the_order_of_texts_stays_as_it_is() {
        for one in TEXTS {
            for other in TEXTS {
                assert_eq!(one.cmp(other), written(one).cmp(&written(other)), "{one:?} {other:?}");
            }
        }
    }
}
