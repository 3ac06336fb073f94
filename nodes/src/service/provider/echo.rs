//! What was sent is kept out of what is said about it: errors go to logs, and a provider's words may quote the request.

use std::sync::Arc;

use serde_json::Value;

/// So many characters in a row that were sent, and the words are taken for a quotation.
const QUOTED_CHARS: usize = 12;
/// A shorter text counts where it is quoted whole, but not below this: `ok` is quoted by chance.
const WHOLE_CHARS_MIN: usize = 4;
/// Fields of a request that say what is to be done, not what is private.
const OPEN_FIELDS: [&str; 4] = ["model", "role", "type", "encoding_format"];

/// The texts of one request.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<[String]>);

impl Sent {
    /// All texts in the request's body; of what is not JSON, the whole.
    pub(super) fn of_body(body: &[u8]) -> Self {
        let mut texts = Vec::new();
        match serde_json::from_slice(body) {
            Ok(value) => collect(value, &mut texts),
            Err(_) => texts.extend(folded(&String::from_utf8_lossy(body))),
        }
        Self(texts.into())
    }

    /// These texts.
    pub(super) fn of_texts<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Self(texts.filter_map(folded).collect())
    }

    /// Whether the words repeat something of it.
    pub(super) fn is_quoted_in(&self, words: &str) -> bool {
        let Some(words) = folded(words) else { return false };
        let letters: Vec<char> = words.chars().collect();
        let runs: Vec<String> = letters.windows(QUOTED_CHARS).map(|run| run.iter().collect()).collect();
        self.0.iter().any(|text| {
            let whole = text.chars().count() >= WHOLE_CHARS_MIN && words.contains(text.as_str());
            whole || runs.iter().any(|run| text.contains(run.as_str()))
        })
    }
}

fn collect(value: Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.extend(folded(&text)),
        Value::Array(values) => values.into_iter().for_each(|value| collect(value, texts)),
        Value::Object(fields) => {
            let private = fields
                .into_iter()
                .filter(|(name, _)| !OPEN_FIELDS.contains(&name.as_str()));
            private.for_each(|(_, value)| collect(value, texts));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One space between words, as they are shown; `None` where there are none.
fn folded(text: &str) -> Option<String> {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!folded.is_empty()).then_some(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_repeat_the_request_are_told_from_those_that_explain_it() {
        let body = br#"{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "my  number is\n4711-0815 today"}, {"content": "pin7"}]}"#;
        let sent = Sent::of_body(body);

        assert!(sent.is_quoted_in("invalid content: `number is 4711-0815`"));
        assert!(sent.is_quoted_in("what is pin7?"), "a short text, whole");
        assert!(!sent.is_quoted_in("`gpt-4o-mini` takes no temperature: leave it out"));
        assert!(!sent.is_quoted_in(""));
        assert!(!Sent::default().is_quoted_in("anything at all"));
        assert!(Sent::of_texts(["one two three four"].into_iter()).is_quoted_in("cut at: two three four"));
    }
}
