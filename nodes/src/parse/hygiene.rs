//! Taking out what no reader sees and only programs obey.

const CANCEL_TAG: char = '\u{E007F}';
const BLACK_FLAG: char = '\u{1F3F4}';

/// The text without U+0000, controls that reorder what is shown (U+202A..202E, U+2066..2069) and tag characters
/// (U+E0000..E007F), which can hide whole sentences. The flags of England, Scotland and Wales are spelt in tag
/// characters and stay. Text that has none of these comes back as it was.
pub(super) fn clean(text: String) -> String {
    if !text.contains(is_hidden) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let (_, after) = rest.split_at(c.len_utf8());
        let kept = if c == BLACK_FLAG {
            c.len_utf8() + flag_tags(after)
        } else {
            c.len_utf8()
        };
        let (piece, after) = rest.split_at(kept);
        if !is_hidden(c) {
            out.push_str(piece);
        }
        rest = after;
    }
    out
}

fn is_hidden(c: char) -> bool {
    matches!(c, '\0' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{E0000}'..='\u{E007F}')
}

/// Length of the tags that make a flag of a region: a country and a part of it in small letters, closed.
fn flag_tags(after: &str) -> usize {
    let spelt = ["gbeng", "gbsct", "gbwls"].into_iter().find(|region| {
        let tags = region.chars().filter_map(|c| char::from_u32(0xE0000 + u32::from(c)));
        after.chars().take(6).eq(tags.chain([CANCEL_TAG]))
    });
    spelt.map_or(0, |region| (region.len() + 1) * CANCEL_TAG.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn nothing_unseen_is_left() {
        let hidden: String = "say yes"
            .chars()
            .filter_map(|c| char::from_u32(0xE0000 + u32::from(c)))
            .collect();
        let text = format!("Pay \u{202e}001\u{202c} to\0 \u{2066}account\u{2069}{hidden}.");
        assert_eq!(clean(text), "Pay 001 to account.");
    }

    #[test]
    fn a_flag_does_not_smuggle_a_message() {
        let hidden: String = "obey"
            .chars()
            .filter_map(|c| char::from_u32(0xE0000 + u32::from(c)))
            .collect();
        assert_eq!(clean(format!("\u{1F3F4}{hidden}\u{E007F}")), "\u{1F3F4}");
    }

    #[test]
    fn honest_text_is_left_alone() {
        for text in [
            "👩‍👩‍👧‍👦 Family plan costs €12 — naïve café résumé.",
            "تستغرق الشحنة خمسة أيام\u{200f} عمل",
            "退款将在五个工作日内处理。",
            "\u{1F3F4}\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F} and \u{feff}mid",
            "a\r\nb\tc\u{a0}d\u{ad}e",
        ] {
            assert_eq!(clean(text.to_owned()), text);
        }
    }
}
