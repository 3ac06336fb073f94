//! Counting tokens, by the one vocabulary that all figures of usage and all budgets here use.

use tiktoken_rs::o200k_base_singleton;

use crate::service::Message;

/// Tokens that a chat format spends around each message, as the vocabulary's own maker counts them.
const TOKENS_PER_MESSAGE: u64 = 3;

/// Tokens of a text in `o200k_base`.
pub(crate) fn count(text: &str) -> u64 {
    // A length of a slice always fits.
    u64::try_from(o200k_base_singleton().count_ordinary(text)).unwrap_or(u64::MAX)
}

/// Tokens of a whole prompt.
pub(crate) fn count_prompt(messages: &[Message]) -> u64 {
    messages
        .iter()
        .map(|message| count(&message.content) + TOKENS_PER_MESSAGE)
        .sum()
}

/// The longest beginning of `text` that has at most `tokens_max` tokens and ends between two characters.
pub(crate) fn beginning(text: &str, tokens_max: u64) -> &str {
    let tokens = o200k_base_singleton().encode_ordinary(text);
    let kept = usize::try_from(tokens_max).unwrap_or(usize::MAX).min(tokens.len());
    let bytes = o200k_base_singleton()
        .decode_bytes(tokens.get(..kept).unwrap_or_default())
        .map_or(0, |bytes| bytes.len());
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_keeps_to_its_tokens_and_to_whole_characters() {
        let text = "Die Garantie läuft 24 Monate. 退款将在五个工作日内处理。 👩‍👩‍👧‍👦";

        for tokens_max in 0..count(text) {
            let beginning = beginning(text, tokens_max);
            assert!(text.starts_with(beginning));
            assert!(count(beginning) <= tokens_max, "{beginning:?} at {tokens_max}");
        }
        assert_eq!(beginning(text, count(text)), text);
    }

    #[test]
    fn special_tokens_in_a_text_are_counted_as_text() {
        assert!(count("<|endoftext|>") > 1);
    }
}
