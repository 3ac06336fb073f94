//! Taking what looks like a secret out of texts that are kept, told or logged.

mod label;

use std::{borrow::Cow, ops::Range};

use self::label::after_label;
use crate::state::SECRET;

/// How keys of well-known services begin. What follows makes them out.
const PREFIXES: [(&str, Behind); 43] = [
    ("sk-", Behind::Random),
    ("gsk_", Behind::Random),
    ("sk_live_", Behind::Any),
    ("sk_test_", Behind::Any),
    ("pk_live_", Behind::Any),
    ("pk_test_", Behind::Any),
    ("rk_live_", Behind::Any),
    ("rk_test_", Behind::Any),
    ("sk_", Behind::Long),
    ("pk-lf-", Behind::Any),
    ("whsec_", Behind::Any),
    ("AKIA", Behind::Capitals),
    ("ASIA", Behind::Capitals),
    ("AIza", Behind::Long),
    ("ya29.", Behind::Any),
    ("ghp_", Behind::Any),
    ("gho_", Behind::Any),
    ("ghu_", Behind::Any),
    ("ghs_", Behind::Any),
    ("ghr_", Behind::Any),
    ("github_pat_", Behind::Any),
    ("glpat-", Behind::Any),
    ("xoxa-", Behind::Any),
    ("xoxb-", Behind::Any),
    ("xoxe-", Behind::Any),
    ("xoxo-", Behind::Any),
    ("xoxp-", Behind::Any),
    ("xoxr-", Behind::Any),
    ("xoxs-", Behind::Any),
    ("xapp-", Behind::Any),
    ("hf_", Behind::Random),
    ("npm_", Behind::Long),
    ("pypi-", Behind::Long),
    ("dop_v1_", Behind::Any),
    ("shpat_", Behind::Any),
    ("SG.", Behind::Random),
    ("xai-", Behind::Random),
    ("nvapi-", Behind::Any),
    ("pplx-", Behind::Random),
    ("pcsk_", Behind::Any),
    ("lsv2_", Behind::Any),
    ("AGE-SECRET-KEY-", Behind::Any),
    ("eyJ", Behind::Any),
];

/// What makes a key of what follows its prefix.
#[derive(Clone, Copy)]
enum Behind {
    /// Enough of it: the prefix is no word.
    Any,
    /// Twice as much, and no plain words: the prefix may be one.
    Random,
    /// As much as keys have.
    Long,
    /// Sixteen capitals and digits.
    Capitals,
}

/// Shorter than this behind its prefix, it is taken for a word.
const PREFIXED_BYTES_MIN: usize = 8;
/// Shorter than this, it is no key of those services whose prefix a name may have as well.
const KEY_BYTES_MIN: usize = 20;
/// As long as this, it is no word, whatever it looks like.
const LONG_BYTES: usize = 32;
/// The name before an `@` of an address, without a password, is a key from this length on.
const USER_BYTES_MIN: usize = 16;
/// So far behind `://` a password with a slash in it is looked for.
const ADDRESS_BYTES_MAX: usize = 1_024;

/// The text without what looks like a secret: keys of well-known services and signed tokens, what follows `Bearer`, passwords
/// in addresses, what follows `password=`, `token:` and their like, cookies, and private keys. The time that it takes grows
/// with the text's length and no faster, whatever it holds.
///
/// It is the last net, not the first: what must not be told, do not put into an error. What errors say goes through here
/// before it is kept with its thread, told in events or logged by the engine. Sentences, ids and digests stay as they are,
/// unless they stand where a secret would: behind `token=`, say.
///
/// ```
/// use stepgraph::scrubbed;
///
/// let text = "connect to postgres://app:hunter2@db/threads: refused, Bearer abcdef12345";
/// assert_eq!(scrubbed(text), "connect to postgres://app:[secret]@db/threads: refused, Bearer [secret]");
/// assert_eq!(scrubbed("field `key` is missing"), "field `key` is missing");
/// ```
#[must_use]
pub fn scrubbed(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut clean = String::new();
    let (mut told, mut at) = (0, 0);
    while at < bytes.len() {
        let Some(secret) = secret_at(bytes, at) else {
            at += 1;
            continue;
        };
        clean.push_str(text.get(told..secret.start).unwrap_or_default());
        clean.push_str(SECRET);
        told = secret.end;
        at = secret.end;
    }
    if told == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(text.get(told..).unwrap_or_default());
    Cow::Owned(clean)
}

/// The same of a text of one's own, which is given back if it is clean.
pub(crate) fn scrub(text: String) -> String {
    match scrubbed(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(clean) => clean,
    }
}

/// What an error says, without secrets.
pub(crate) fn told(error: &impl ToString) -> String {
    scrub(error.to_string())
}

/// A secret that shows at `at`. It begins there or later, and both its ends stand beside plain ASCII.
fn secret_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let secret = match rest.first()? {
        b':' if rest.starts_with(b"://") => in_address(bytes, at + 3),
        b':' | b'=' => after_label(bytes, at),
        b'-' if rest.starts_with(b"-----BEGIN ") => private_key(bytes, at),
        first if first.is_ascii_alphabetic() && !follows_word(bytes, at) => {
            prefixed(rest, at).or_else(|| label::after_scheme(bytes, at))
        }
        _ => None,
    };
    // What is clean already stays as it is.
    secret.filter(|secret| !secret.is_empty() && !is_clean(bytes, secret.start))
}

fn is_clean(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(SECRET.as_bytes()))
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    before.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// `user:PASSWORD@host`, or a long name without a password.
fn in_address(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let rest = bytes.get(start..)?;
    let belongs = |byte: u8| !byte.is_ascii_whitespace() && !b"\"'`<>".contains(&byte);
    let authority = rest.get(..run(rest, |byte| belongs(byte) && !b"/?#\\".contains(&byte)))?;
    let colon = authority.iter().position(|byte| *byte == b':');
    if let Some(end) = authority.iter().rposition(|byte| *byte == b'@') {
        return match colon.filter(|colon| *colon < end) {
            Some(colon) => Some(start + colon + 1..start + end),
            None => (end >= USER_BYTES_MIN).then_some(start..start + end),
        };
    }
    // A password with a slash, which no address may have and some have: what looks like its port is no number.
    let colon = colon?;
    let port = authority.get(colon + 1..)?;
    if !port.is_empty() && port.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let near = rest.get(..rest.len().min(ADDRESS_BYTES_MAX))?;
    let end = near.get(..run(near, belongs))?.iter().rposition(|byte| *byte == b'@')?;
    Some(start + colon + 1..start + end)
}

fn prefixed(rest: &[u8], at: usize) -> Option<Range<usize>> {
    let found = PREFIXES.iter().find(|(prefix, _)| rest.starts_with(prefix.as_bytes()));
    let (prefix, behind) = found?;
    let length = run(rest, is_key);
    let length = trimmed(rest.get(..length)?);
    let key = rest.get(prefix.len()..length)?;
    let is_secret = match behind {
        Behind::Any => key.len() >= PREFIXED_BYTES_MIN,
        Behind::Random => key.len() >= 2 * PREFIXED_BYTES_MIN && is_random(key),
        Behind::Long => key.len() >= KEY_BYTES_MIN && is_random(key),
        Behind::Capitals => {
            let capital = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            key.len() == 16 && key.iter().all(capital)
        }
    };
    is_secret.then_some(at..at + length)
}

/// The length without what ends a sentence.
fn trimmed(value: &[u8]) -> usize {
    let tail = value
        .iter()
        .rev()
        .take_while(|byte| b".,;:)}]!?-".contains(byte))
        .count();
    value.len() - tail
}

/// Whether it is no plain word or words: it has a digit, a capital inside, a sign of base64, or is very long.
fn is_random(value: &[u8]) -> bool {
    value.len() >= LONG_BYTES
        || value.iter().any(|byte| byte.is_ascii_digit() || b"=+".contains(byte))
        || value.iter().skip(1).any(u8::is_ascii_uppercase)
}

/// The whole of a PEM block, or all that follows where it does not end.
fn private_key(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const END: &[u8] = b"-----END ";
    const TITLE_BYTES_MAX: usize = 64;
    let rest = bytes.get(at..)?;
    let title = rest.get(..rest.len().min(TITLE_BYTES_MAX))?;
    if !title.windows(11).any(|window| window == b"PRIVATE KEY") {
        return None;
    }
    let end = rest.windows(END.len()).position(|window| window == END);
    let end = end.map_or(rest.len(), |end| {
        // The title stands between two rows of dashes.
        let title = rest.get(end + END.len()..).unwrap_or_default();
        let dashes = title.iter().position(|byte| *byte == b'-' || *byte == b'\n');
        let dashes = dashes.unwrap_or(title.len());
        end + END.len() + dashes + run(title.get(dashes..).unwrap_or_default(), |byte| byte == b'-')
    });
    Some(at..at + end)
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests;
