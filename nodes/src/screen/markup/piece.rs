//! One link, tag or reference: what it is, and what is shown of it.

use std::borrow::Cow;

use url::Url;

use super::{
    target::{has_disguised_address, target},
    trigger::{ADDRESSES, CHUNK, LENTICULAR, PASSAGE, RELATIVE, RUNNING, TAG, TARGET, WWW, begins, could_become},
};
use crate::domains::Domains;

/// What stands in the place of an address in running text.
const REMOVED: &str = "[link removed]";
/// What stands in the place of the target of a link or an image.
pub(super) const NOWHERE: &str = "#";
/// Longest address, in bytes; what is longer leads nowhere.
pub(super) const ADDRESS_BYTES_MAX: usize = 2_048;
/// Longest tag that is waited for, in bytes.
const TAG_BYTES_MAX: usize = 1_024;
/// Longest name of a tag, in bytes.
const TAG_NAME_BYTES_MAX: usize = 32;
/// Longest reference, in bytes.
const REFERENCE_BYTES_MAX: usize = 120;

/// Elements that run, load or ask by themselves.
const LIVE_ELEMENTS: [&str; 19] = [
    "script", "iframe", "frame", "style", "object", "embed", "applet", "img", "image", "svg", "math", "video", "audio",
    "source", "link", "meta", "base", "form", "portal",
];

/// What is read, from the first character of a piece on.
pub(super) struct Reading<'a> {
    pub(super) text: &'a str,
    pub(super) before: Option<char>,
    pub(super) is_last: bool,
    pub(super) hosts: &'a Domains,
}

/// What became of it.
pub(super) enum Piece<'a> {
    /// More has to come first.
    Waits,
    /// So many bytes are read and this is shown in their place.
    Shown { bytes: usize, text: Cow<'a, str> },
    /// Nothing of it is shown but this, and nothing of what follows up to its end.
    Endless { text: &'static str },
    /// So many bytes name these passages, and are not shown.
    Cites { bytes: usize, passages: Vec<usize> },
}

pub(super) fn read<'a>(reading: &Reading<'a>) -> Piece<'a> {
    let text = reading.text;
    let is = |trigger: &&'static str| begins(text, trigger);
    if begins(text, TAG) {
        return tag(reading);
    }
    if TARGET.iter().any(is) {
        return target(reading);
    }
    if PASSAGE.iter().chain(&CHUNK).any(is) {
        return reference(reading, ']');
    }
    if LENTICULAR.iter().any(is) {
        return reference(reading, '】');
    }
    if let Some(scheme) = RUNNING.iter().find(|trigger| is(trigger)) {
        return running(text, scheme);
    }
    let is_address = ADDRESSES.iter().any(is)
        || begins(text, RELATIVE)
        || (begins(text, WWW) && !reading.before.is_some_and(char::is_alphanumeric));
    if is_address {
        return address(reading);
    }
    // Only the beginning of a trigger: it is one if the text goes on so.
    let could_be = ADDRESSES
        .iter()
        .chain(&RUNNING)
        .chain(&PASSAGE)
        .chain(&CHUNK)
        .chain(&LENTICULAR)
        .chain(&TARGET)
        .chain([&RELATIVE, &WWW])
        .any(|trigger| could_become(text, trigger));
    if could_be && !reading.is_last {
        Piece::Waits
    } else {
        first_shown(text)
    }
}

/// The first character is one like others.
pub(super) fn first_shown(text: &str) -> Piece<'_> {
    let bytes = text.chars().next().map_or(0, char::len_utf8);
    Piece::Shown {
        bytes,
        text: Cow::Borrowed(text.get(..bytes).unwrap_or_default()),
    }
}

/// A scheme with a blank before its colon is none.
fn running<'a>(text: &'a str, scheme: &str) -> Piece<'a> {
    let colon = scheme.find(':').unwrap_or_default();
    let name = text.get(..colon).unwrap_or_default();
    Piece::Shown {
        bytes: colon + 1,
        text: Cow::Owned(format!("{name} :")),
    }
}

/// Whether an address ends before this character.
pub(super) fn ends_address(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\''
                | '<'
                | '>'
                | ')'
                | ']'
                | '}'
                | '`'
                | '|'
                | '。'
                | '，'
                | '、'
                | '）'
                | '」'
                | '】'
                | '；'
                | '”'
                | '’'
        )
}

fn address<'a>(reading: &Reading<'a>) -> Piece<'a> {
    let text = reading.text;
    let gone = if reading.before.is_some_and(|c| matches!(c, '(' | '"' | '\'' | '=')) {
        NOWHERE
    } else {
        REMOVED
    };
    let whole = match text.find(ends_address) {
        Some(end) => text.get(..end).unwrap_or_default(),
        None if text.len() > ADDRESS_BYTES_MAX => return Piece::Endless { text: gone },
        None if reading.is_last => text,
        None => return Piece::Waits,
    };
    let sentence_end = ['.', ',', ';', ':', '!', '?', '*', '_'];
    let address = whole.trim_end_matches(sentence_end);
    let is_gone = match host_of(address) {
        Host::None => return first_shown(text),
        Host::Unreadable => true,
        Host::Named(host) => address.len() > ADDRESS_BYTES_MAX || !reading.hosts.cover(&host),
    };
    Piece::Shown {
        bytes: address.len(),
        text: Cow::Borrowed(if is_gone { gone } else { address }),
    }
}

enum Host {
    /// The text is no address.
    None,
    /// It looks like one and cannot be read as one.
    Unreadable,
    Named(String),
}

/// The host of an address as a browser reads it: a backslash is a slash to it, and what stands before an `@` no host.
fn host_of(address: &str) -> Host {
    let is_relative = begins(address, RELATIVE);
    let whole = if is_relative {
        format!("https:{address}")
    } else if begins(address, WWW) {
        format!("https://{address}")
    } else {
        address.to_owned()
    };
    let behind = whole.split_once(':').map_or("", |(_, rest)| rest);
    if behind.trim_start_matches(['/', '\\']).is_empty() {
        return Host::None;
    }
    let Ok(url) = Url::parse(&whole) else {
        return Host::Unreadable;
    };
    let Some(host) = url.host_str() else {
        return Host::Unreadable;
    };
    // `// see below` is a remark, `//evil.example` leads somewhere.
    let is_remark = is_relative && !host.contains(['.', ':']) && host != "localhost";
    if is_remark {
        Host::None
    } else {
        Host::Named(host.to_owned())
    }
}

fn tag<'a>(reading: &Reading<'a>) -> Piece<'a> {
    let text = reading.text;
    let inside = text.get(TAG.len()..).unwrap_or_default();
    let named = inside.strip_prefix('/').unwrap_or(inside);
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let name_bytes = named.find(|c| !is_of_name(c)).unwrap_or(named.len());
    let name = named.get(..name_bytes).unwrap_or_default();
    let is_open = !reading.is_last && text.len() < TAG_BYTES_MAX;
    match named.get(name_bytes..).and_then(|rest| rest.chars().next()) {
        None if is_open && name_bytes <= TAG_NAME_BYTES_MAX && name.chars().all(is_of_name) => return Piece::Waits,
        Some(c) if !(c.is_whitespace() || matches!(c, '/' | '>')) => return first_shown(text),
        _ if !name.starts_with(|c: char| c.is_ascii_alphabetic()) => return first_shown(text),
        _ => {}
    }
    let is_live = LIVE_ELEMENTS.iter().any(|element| element.eq_ignore_ascii_case(name));
    let end = inside.find('>');
    if !is_live && end.is_none() && is_open {
        return Piece::Waits;
    }
    let attributes = inside.get(..end.unwrap_or(inside.len())).unwrap_or_default();
    let text = if is_live || has_live_attribute(attributes) || has_disguised_address(attributes, reading.hosts) {
        "< "
    } else {
        TAG
    };
    Piece::Shown {
        bytes: TAG.len(),
        text: Cow::Borrowed(text),
    }
}

/// Whether one of the attributes runs or loads: a handler, a style, a document.
fn has_live_attribute(attributes: &str) -> bool {
    let lower = attributes.to_ascii_lowercase();
    lower.match_indices('=').any(|(at, _)| {
        let name = lower.get(..at).unwrap_or_default().trim_end();
        let name = name
            .rsplit(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        (name.len() > 2 && name.starts_with("on")) || matches!(name, "style" | "srcdoc")
    })
}

fn reference<'a>(reading: &Reading<'a>, closing: char) -> Piece<'a> {
    let text = reading.text;
    let Some(end) = text.find(closing) else {
        let waits = !reading.is_last && text.len() < REFERENCE_BYTES_MAX;
        return if waits { Piece::Waits } else { first_shown(text) };
    };
    let bytes = end + closing.len_utf8();
    let inside = text.get(..end).unwrap_or_default().trim_start().to_lowercase();
    let passages = match inside.strip_prefix("[passage") {
        Some(numbers) => numbers_of(numbers),
        None if inside.starts_with('【') && !inside.contains('†') => None,
        None => Some(Vec::new()),
    };
    match passages {
        Some(passages) if bytes <= REFERENCE_BYTES_MAX => Piece::Cites { bytes, passages },
        _ => first_shown(text),
    }
}

/// The numbers of ` 1`, `s 1 and 3`, ` 1, passage 2`; `None` if it says anything else.
fn numbers_of(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        match word {
            "s" | "and" | "passage" | "passages" => {}
            number => numbers.push(number.parse().ok()?),
        }
    }
    (!numbers.is_empty()).then_some(numbers)
}
