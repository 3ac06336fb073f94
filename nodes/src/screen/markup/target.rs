//! Where a link leads whose target is written so that it does not look like an address: with character references
//! (`&#47;&#47;`), escapes or backslashes (`/\`), all of which a renderer or a browser undoes.

use std::borrow::Cow;

use url::Url;

use super::{
    piece::{ADDRESS_BYTES_MAX, NOWHERE, Piece, Reading, first_shown},
    trigger::{RUNNING, TARGET, begins},
};
use crate::domains::Domains;

/// Schemes that reach no other host and run nothing.
const HARMLESS: [&str; 3] = ["mailto", "tel", "sms"];

/// Character references that stand for signs of an address, in lower case.
const NAMED: [(&str, char); 11] = [
    ("amp", '&'),
    ("colon", ':'),
    ("sol", '/'),
    ("bsol", '\\'),
    ("period", '.'),
    ("commat", '@'),
    ("quest", '?'),
    ("num", '#'),
    ("tab", '\t'),
    ("newline", '\n'),
    ("nbsp", '\u{a0}'),
];

/// Longest character reference between `&` and `;`, in bytes.
const REFERENCE_BYTES_MAX: usize = 12;

/// Attributes that hold addresses.
const ADDRESS_ATTRIBUTES: [&str; 9] = [
    "href",
    "src",
    "action",
    "formaction",
    "ping",
    "poster",
    "background",
    "cite",
    "data",
];

/// What follows `](` or `]:` up to its end. A target that is written plainly is left to the other rules.
pub(super) fn target<'a>(reading: &Reading<'a>) -> Piece<'a> {
    let text = reading.text;
    let mark = TARGET
        .iter()
        .find(|mark| begins(text, mark))
        .map_or(0, |mark| mark.len());
    let limit = text.floor_char_boundary(ADDRESS_BYTES_MAX);
    let window = text.get(..limit).unwrap_or_default();
    let behind = window.get(mark..).unwrap_or_default();
    let begin = behind
        .find(|c: char| !(c.is_whitespace() || c == '<'))
        .unwrap_or(behind.len());
    let whole = behind.get(begin..).unwrap_or_default();
    let length = match whole.find(|c: char| c.is_whitespace() || matches!(c, ')' | '>' | '<' | '"')) {
        Some(length) => length,
        None if text.len() > limit => return first_shown(text),
        None if !reading.is_last => return Piece::Waits,
        None => whole.len(),
    };
    let address = whole.get(..length).unwrap_or_default();
    if !is_disguised(address) || (leads_home(address, reading.hosts) && leads_home(&undone(address), reading.hosts)) {
        return first_shown(text);
    }
    let shown = text.get(..mark + begin).unwrap_or_default();
    Piece::Shown {
        bytes: mark + begin + length,
        text: Cow::Owned(format!("{shown}{NOWHERE}")),
    }
}

/// Whether one of a tag's attributes holds an address in disguise that leads elsewhere.
pub(super) fn has_disguised_address(attributes: &str, hosts: &Domains) -> bool {
    attributes.match_indices('=').any(|(at, _)| {
        let name = attributes.get(..at).unwrap_or_default().trim_end();
        let name = name
            .rsplit(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        let value = attributes.get(at + 1..).unwrap_or_default().trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value.split(quote).nth(1).unwrap_or_default(),
            _ => value.split(char::is_whitespace).next().unwrap_or_default(),
        };
        let is_address = ADDRESS_ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(name));
        let is_disguised = undone(value) != value || value.contains(['\\', '\t', '\n']);
        is_address && is_disguised && !(leads_home(value, hosts) && leads_home(&undone(value), hosts))
    })
}

fn is_disguised(address: &str) -> bool {
    let mut signs = address.chars();
    let is_slash = |c: Option<char>| matches!(c, Some('/' | '\\'));
    let begins_as_host = is_slash(signs.next()) && is_slash(signs.next());
    (begins_as_host && !address.starts_with("//")) || undone(address) != address
}

/// Whether an address stays on its page, or leads to a host that the tenant names.
fn leads_home(address: &str, hosts: &Domains) -> bool {
    if RUNNING.iter().any(|scheme| begins(address, scheme)) {
        return false;
    }
    // The name of the page does not matter: what is relative to it has its host.
    let Ok(page) = Url::parse("https://page.invalid/") else {
        return false;
    };
    let Ok(url) = page.join(address) else { return false };
    match url.host_str() {
        Some(host) => url.host_str() == page.host_str() || hosts.cover(host),
        None => HARMLESS.contains(&url.scheme()),
    }
}

/// The address as a renderer hands it on: character references and escapes of signs are what they stand for.
fn undone(address: &str) -> Cow<'_, str> {
    if !address.contains(['&', '\\']) {
        return Cow::Borrowed(address);
    }
    let mut plain = String::with_capacity(address.len());
    let mut rest = address;
    while let Some(c) = rest.chars().next() {
        let behind = rest.get(c.len_utf8()..).unwrap_or_default();
        let escaped = behind.chars().next().filter(char::is_ascii_punctuation);
        let (shown, next) = match (c, escaped) {
            ('\\', Some(sign)) => (sign, behind.get(sign.len_utf8()..).unwrap_or_default()),
            ('&', _) => referred(behind).unwrap_or((c, behind)),
            _ => (c, behind),
        };
        plain.push(shown);
        rest = next;
    }
    Cow::Owned(plain)
}

/// The character that a reference stands for, and what follows it.
fn referred(behind: &str) -> Option<(char, &str)> {
    let end = behind.find(';').filter(|end| *end <= REFERENCE_BYTES_MAX)?;
    let name = behind.get(..end)?.to_ascii_lowercase();
    let character = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
        None => NAMED.iter().find(|(known, _)| *known == name)?.1,
    };
    Some((character, behind.get(end + 1..)?))
}
