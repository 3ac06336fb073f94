//! What stands behind a label: `password=`, `"token": "`, `Authorization: Bearer`.

use std::ops::Range;

use super::{LONG_BYTES, SECRET, is_key, is_random, run, trimmed};

/// What a label says of what follows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// It is a secret up to the line's end.
    Line,
    /// It is a secret, whatever it looks like.
    Strong,
    /// It is one if it looks like one.
    Weak,
}

const LINE: [&str; 2] = ["cookie", "set-cookie"];
const STRONG: [&str; 23] = [
    "password",
    "passwd",
    "passwort",
    "pwd",
    "passphrase",
    "secret",
    "secret_key",
    "secret-key",
    "secretkey",
    "secretaccesskey",
    "secret_access_key",
    "api_key",
    "api-key",
    "apikey",
    "api key",
    "access_key",
    "access key",
    "private_key",
    "credentials",
    "access_token",
    "refresh_token",
    "auth_token",
    "accesstoken",
];
/// After a sign these are followed by a secret, after a space by one that the scheme says.
const SCHEMES: [&str; 6] = ["bearer", "basic", "token", "apikey", "digest", "negotiate"];
const WEAK: [&str; 9] = [
    "key",
    "token",
    "signature",
    "sig",
    "credential",
    "authorization",
    "auth",
    "bearer",
    "jwt",
];
/// Shorter than this, what follows a weak label is taken for a name or a number.
const WEAK_BYTES_MIN: usize = 16;
/// Shorter than this, what follows a scheme is taken for a word.
const SCHEME_BYTES_MIN: usize = 8;
/// Longest label.
const LABEL_BYTES_MAX: usize = 32;
/// How many labels may stand in a row.
const LABELS_MAX: usize = 4;
/// How many spaces, quotes and escapes may stand before a value.
const SKIPPED_MAX: usize = 6;
/// What follows a label and is no value.
const NOTHING: [&[u8]; 5] = [b"null", b"true", b"false", b"none", b"None"];

/// What follows `password=`, `"token": "` and the like; `sign` is the place of the sign.
pub(super) fn after_label(bytes: &[u8], sign: usize) -> Option<Range<usize>> {
    let before = bytes.get(sign.saturating_sub(LABEL_BYTES_MAX)..sign)?.trim_ascii_end();
    let before = before
        .strip_suffix(b"\"")
        .or_else(|| before.strip_suffix(b"'"))
        .unwrap_or(before);
    let mut label = ending(before.strip_suffix(b"\\").unwrap_or(before))?;
    let mut value = Value::begin(bytes, sign + 1)?;
    for _ in 0..LABELS_MAX {
        let Some((next, start)) = another(bytes, &value) else {
            break;
        };
        label = label.min(next);
        value = Value::begin(bytes, start)?;
    }
    value.secret(bytes, label)
}

/// What follows `Bearer ` and the like, which stands at `at`.
pub(super) fn after_scheme(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let scheme = SCHEMES.iter().take(2).find(|scheme| begins(rest, scheme))?;
    let behind = rest.get(scheme.len()..)?;
    let skipped = run(behind, |byte| b" :\"'".contains(&byte)).min(SKIPPED_MAX);
    if skipped == 0 {
        return None;
    }
    let start = at + scheme.len() + skipped;
    let value = bytes.get(start..)?;
    let value = value.get(..run(value, |byte| is_key(byte) || b"~+/=".contains(&byte)))?;
    let length = trimmed(value);
    let is_secret = length >= SCHEME_BYTES_MIN && is_random(value.get(..length)?);
    is_secret.then_some(start..start + length)
}

/// Whether the text begins with this word.
fn begins(text: &[u8], word: &str) -> bool {
    let head = text.get(..word.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
}

/// The label that a text ends with.
fn ending(text: &[u8]) -> Option<Label> {
    let ends = |words: &[&str], whole: bool| words.iter().any(|word| ends_with(text, word, whole));
    if ends(&LINE, true) {
        Some(Label::Line)
    } else if ends(&STRONG, false) {
        Some(Label::Strong)
    } else if ends(&WEAK, true) {
        Some(Label::Weak)
    } else {
        None
    }
}

/// `whole` words do not end another: a `monkey` is no key, a `sessionKey` and a `session_key` are.
fn ends_with(text: &[u8], word: &str, whole: bool) -> bool {
    let Some((before, tail)) = text
        .len()
        .checked_sub(word.len())
        .and_then(|at| text.split_at_checked(at))
    else {
        return false;
    };
    if !tail.eq_ignore_ascii_case(word.as_bytes()) {
        return false;
    }
    let hump = tail.first().is_some_and(u8::is_ascii_uppercase) && before.last().is_some_and(u8::is_ascii_lowercase);
    !whole || hump || before.last().is_none_or(|byte| !byte.is_ascii_alphabetic())
}

/// A value that is a label itself: what it says, and where what follows it begins.
fn another(bytes: &[u8], value: &Value) -> Option<(Label, usize)> {
    let rest = bytes.get(value.start..)?;
    let rest = rest.get(..rest.len().min(LABEL_BYTES_MAX))?;
    let length = run(rest, |byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let word = rest.get(..length)?;
    let spaces = run(rest.get(length..)?, |byte| byte == b' ');
    match rest.get(length + spaces)? {
        b':' | b'=' => Some((ending(word)?, value.start + length + spaces + 1)),
        _ if spaces > 0 => {
            let is_scheme = SCHEMES
                .iter()
                .any(|scheme| word.eq_ignore_ascii_case(scheme.as_bytes()));
            is_scheme.then_some((Label::Weak, value.start + length + 1))
        }
        _ => None,
    }
}

/// Where a value begins, and the quote that it stands in.
struct Value {
    start: usize,
    quote: Option<u8>,
    /// The quote stands in a quoted text itself.
    escaped: bool,
}

impl Value {
    fn begin(bytes: &[u8], at: usize) -> Option<Self> {
        let rest = bytes.get(at..)?;
        let inside = run(rest, |byte| byte == b' ').min(SKIPPED_MAX);
        let wrapped = rest.get(inside..)?.starts_with(b"Some(");
        let at = at + if wrapped { inside + b"Some(".len() } else { 0 };
        let rest = bytes.get(at..)?;
        let skipped = run(rest, |byte| b" \"'\\".contains(&byte)).min(SKIPPED_MAX);
        let skipped = rest.get(..skipped)?;
        let quote = skipped.iter().rposition(|byte| b"\"'".contains(byte));
        Some(Self {
            start: at + skipped.len(),
            quote: quote.and_then(|at| skipped.get(at).copied()),
            escaped: quote.is_some_and(|at| at > 0 && skipped.get(at - 1) == Some(&b'\\')),
        })
    }

    fn secret(&self, bytes: &[u8], label: Label) -> Option<Range<usize>> {
        let rest = bytes.get(self.start..)?;
        // What is clean already stays, before it is looked at to its end.
        if rest.starts_with(SECRET.as_bytes()) {
            return None;
        }
        let length = match (label, self.quote) {
            (Label::Line | Label::Strong, Some(quote)) => self.quoted(rest, quote),
            (Label::Line, None) => trimmed(rest.get(..run(rest, |byte| !b"\r\n\"".contains(&byte)))?),
            (Label::Strong, None) => trimmed(rest.get(..run(rest, |byte| is_bare(byte) && byte != b'&'))?),
            (Label::Weak, _) => {
                let length = trimmed(rest.get(..run(rest, |byte| is_bare(byte) && !b"&,;)}".contains(&byte)))?);
                let value = rest.get(..length)?;
                let is_secret = length >= WEAK_BYTES_MIN && is_random(value) && !has_clean(value);
                if is_secret { length } else { 0 }
            }
        };
        let value = rest.get(..length)?;
        (!NOTHING.contains(&value)).then_some(self.start..self.start + length)
    }

    /// Up to the closing quote, or the line's end where none closes.
    fn quoted(&self, rest: &[u8], quote: u8) -> usize {
        let mut escapes = false;
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'\n' => return at,
                byte if *byte == quote && escapes == self.escaped => return at - usize::from(escapes),
                b'\\' => escapes = !escapes,
                _ => escapes = false,
            }
        }
        rest.len()
    }
}

/// What is written without quotes ends at a space or at a quote.
fn is_bare(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"\"'`\\".contains(&byte)
}

/// Whether something was taken out of it. What is longer than this was no weak value.
fn has_clean(value: &[u8]) -> bool {
    let near = value.get(..value.len().min(4 * LONG_BYTES)).unwrap_or_default();
    near.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}
