//! `docs/guide/errors.md` explains every code that this repository's crates can give, and none that they cannot.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{collections::BTreeSet, fs, path::Path};

/// The sources under a folder.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Every `prefix::name` between two marks.
fn codes(text: &str, mark: char) -> BTreeSet<String> {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    text.split(mark)
        .filter(|part| {
            part.split_once("::")
                .is_some_and(|(prefix, name)| word(prefix) && word(name))
        })
        .map(str::to_owned)
        .collect()
}

/// What the functions named `code` of the sources give.
fn given() -> BTreeSet<String> {
    let mut texts = Vec::new();
    for folder in ["src", "checkpoint/src", "../nodes/src", "../server/src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut texts);
    }
    let mut given = BTreeSet::new();
    for text in texts {
        for body in text.split("fn code(").skip(1) {
            let end = body.find("\n    }").unwrap();
            given.extend(codes(body.get(..end).unwrap(), '"'));
        }
    }
    given
}

/// What the tables of the guide explain in their first column.
fn explained(prefixes: &BTreeSet<&str>) -> BTreeSet<String> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/errors.md");
    let guide = fs::read_to_string(guide).unwrap();
    let rows = guide
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let all = rows.flat_map(|first| codes(first, '`'));
    all.filter(|code| prefixes.contains(code.split("::").next().unwrap()))
        .collect()
}

#[test]
fn the_guide_explains_every_code_and_no_other() {
    let given = given();
    assert!(
        given.len() > 40,
        "so few codes were found that the sources must have moved: {given:?}"
    );
    let prefixes = given.iter().map(|code| code.split("::").next().unwrap()).collect();
    let explained = explained(&prefixes);
    let missing: Vec<_> = given.difference(&explained).collect();
    let extra: Vec<_> = explained.difference(&given).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "not explained: {missing:?}; not given: {extra:?}"
    );
}
