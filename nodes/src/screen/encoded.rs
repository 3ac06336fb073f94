//! How a model that was talked into it writes a text so that it does not look like it.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Bytes that make up one group of Base64.
const BASE64_GROUP: usize = 3;

/// The text backwards, turned by 13 letters, in hexadecimal and in Base64, the latter for each place of a group at which it
/// may begin.
pub(super) fn encodings(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let base64 = (0..BASE64_GROUP).map(|from| STANDARD_NO_PAD.encode(bytes.get(from..).unwrap_or_default()));
    [
        text.chars().rev().collect(),
        text.chars().map(rot13).collect(),
        hex(bytes),
    ]
    .into_iter()
    .chain(base64)
    .collect()
}

fn rot13(c: char) -> char {
    let turned = |first: u8, c: u8| char::from(first + (c - first + 13) % 26);
    match u8::try_from(c) {
        Ok(c @ b'a'..=b'z') => turned(b'a', c),
        Ok(c @ b'A'..=b'Z') => turned(b'A', c),
        _ => c,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
