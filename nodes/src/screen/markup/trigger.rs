//! Where in a text something may begin that is more than words.

/// What a piece begins with, in lower case. A tag is told from its name, see [`super::piece`].
pub(super) const ADDRESSES: [&str; 3] = ["http:", "https:", "ftp:"];
pub(super) const RELATIVE: &str = "//";
pub(super) const WWW: &str = "www.";
pub(super) const RUNNING: [&str; 5] = [
    "javascript:",
    "vbscript:",
    "data:text/",
    "data:image/",
    "data:application/",
];
pub(super) const TAG: &str = "<";
/// What the target of a link or an image stands behind.
pub(super) const TARGET: [&str; 2] = ["](", "]:"];
pub(super) const PASSAGE: [&str; 2] = ["[passage", " [passage"];
pub(super) const CHUNK: [&str; 2] = ["[chunk:", " [chunk:"];
pub(super) const LENTICULAR: [&str; 2] = ["【", " 【"];

fn all() -> impl Iterator<Item = &'static str> {
    ADDRESSES
        .into_iter()
        .chain([RELATIVE, WWW, TAG])
        .chain(RUNNING)
        .chain(PASSAGE)
        .chain(CHUNK)
        .chain(LENTICULAR)
        .chain(TARGET)
}

/// The first place at which a piece begins, or at which the text ends in what could become the beginning of one.
pub(super) fn first(text: &str) -> Option<usize> {
    text.char_indices()
        .filter(|(_, c)| may_begin(*c))
        .map(|(at, _)| at)
        .find(|at| {
            let rest = text.get(*at..).unwrap_or_default();
            all().any(|trigger| begins(rest, trigger) || could_become(rest, trigger))
        })
}

const fn may_begin(c: char) -> bool {
    matches!(
        c,
        'h' | 'H' | 'f' | 'F' | 'w' | 'W' | 'j' | 'J' | 'v' | 'V' | 'd' | 'D' | '/' | '<' | '[' | ']' | '【' | ' '
    )
}

/// Whether `text` begins with `lower`, in any case.
pub(super) fn begins(text: &str, lower: &str) -> bool {
    text.get(..lower.len())
        .is_some_and(|beginning| beginning.eq_ignore_ascii_case(lower))
}

/// Whether `text` is a beginning of `lower`, but not all of it.
pub(super) fn could_become(text: &str, lower: &str) -> bool {
    text.len() < lower.len()
        && lower
            .get(..text.len())
            .is_some_and(|beginning| beginning.eq_ignore_ascii_case(text))
}
