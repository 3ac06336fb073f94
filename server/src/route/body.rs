//! JSON bodies as callers really send them.
//!
//! A body is read strictly first. One that is refused is looked at once more, as the callers' own language would: half
//! of a pair of surrogates, which is what is left where a text was cut inside an emoji, becomes U+FFFD; of a name that is
//! there twice the last one counts; and of a name in both spellings the one in camelCase.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// What stands in the place of half a pair of surrogates.
const REPLACEMENT: &[u8] = br"\ufffd";
/// Bytes of an escaped code unit, as `\u0041` is one.
const UNIT_BYTES: usize = 6;

/// Reads an object.
pub(crate) fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return Err(ApiError::invalid(
            "body",
            "the JSON body is wrong: it must be an object, not an array",
        ));
    }
    serde_json::from_slice(bytes).or_else(|error| {
        tolerated(bytes).ok_or_else(|| ApiError::invalid("body", format!("the JSON body is wrong: {error}")))
    })
}

fn tolerated<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let members: Map<String, Value> = serde_json::from_slice(&without_halves(bytes)).ok()?;
    serde_json::from_value(Value::Object(in_one_spelling(members))).ok()
}

/// Without those members whose other spelling says more.
fn in_one_spelling(mut members: Map<String, Value>) -> Map<String, Value> {
    let twins: Vec<(String, String)> = members
        .keys()
        .map(|name| (name.clone(), camel(name)))
        .filter(|(name, camel)| name != camel && members.contains_key(camel))
        .collect();
    for (snake, camel) in twins {
        let says_nothing = members.get(&camel).is_none_or(Value::is_null);
        members.remove(if says_nothing { &camel } else { &snake });
    }
    members
}

/// `client_id` as `clientId`.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

/// The same JSON with each surrogate that has no other half replaced.
fn without_halves(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (before, escape) = rest.split_at(at);
        whole.extend_from_slice(before);
        let next = escape.get(UNIT_BYTES..).unwrap_or_default();
        let (shown, read) = match (unit(escape), unit(next)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (escape.get(..2 * UNIT_BYTES), 2 * UNIT_BYTES),
            (Some(0xd800..=0xdfff), _) => (Some(REPLACEMENT), UNIT_BYTES),
            // Two bytes of any other escape, so that the second half of `\\` begins none.
            _ => (escape.get(..escape.len().min(2)), 2),
        };
        whole.extend_from_slice(shown.unwrap_or_default());
        rest = escape.get(read..).unwrap_or_default();
    }
    whole.extend_from_slice(rest);
    whole
}

/// The code unit that an escape at the beginning stands for.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.get(..UNIT_BYTES)?.strip_prefix(br"\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let are_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| are_hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ChatBody;

    fn read(json: &str) -> Result<ChatBody, ApiError> {
        parsed(json.as_bytes())
    }

    #[test]
    fn half_a_pair_of_surrogates_becomes_a_replacement_and_whole_pairs_stay() {
        for (sent, message) in [
            (r"cut \ud83d", "cut \u{fffd}"),
            (r"\ude00 cut", "\u{fffd} cut"),
            (r"\ud83d\ud83d\ude00\ud83d", "\u{fffd}😀\u{fffd}"),
            (r"\\ud83d \ud83dx", "\\ud83d \u{fffd}x"),
            (r"\\\ud83d", "\\\u{fffd}"),
            (r"\ud83d\n", "\u{fffd}\n"),
        ] {
            let body = read(&format!(r#"{{"message": "{sent}", "sessionId": "s"}}"#)).unwrap();
            assert_eq!(body.message, message, "{sent}");
        }
    }

    #[test]
    fn of_two_spellings_camel_case_counts_and_of_two_equal_names_the_last() {
        for (members, client) in [
            (r#""clientId": "a", "client_id": "b""#, Some("a")),
            (r#""client_id": "b", "clientId": "a""#, Some("a")),
            (r#""client_id": "b", "clientId": null"#, Some("b")),
            (r#""clientId": "a", "clientId": "b""#, Some("b")),
        ] {
            let body = read(&format!(r#"{{{members}, "message": "m", "sessionId": "s"}}"#)).unwrap();
            assert_eq!(body.client_id.as_deref(), client, "{members}");
        }
    }

    #[test]
    fn what_is_no_object_of_the_right_members_stays_refused() {
        for json in [
            "",
            "7",
            "null",
            "{",
            r#"["a", "m", "s"]"#,
            r#" [{"message": "m", "sessionId": "s"}]"#,
            r#"{"message": "\ud83", "sessionId": "s"}"#,
            r#"{"message": "\ud83d", "sessionId": 7}"#,
            r#"{"message": "m", "sessionId": "s"} x"#,
        ] {
            let refused = read(json).unwrap_err();
            assert!(refused.is_for("body"), "{json}");
        }
    }
}
