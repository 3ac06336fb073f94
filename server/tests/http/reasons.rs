//! `docs/guide/errors.md` explains every reason that the widget's interface refuses a request for.

use std::{collections::BTreeSet, fs, path::Path};

/// How a reason is given.
const GIVEN_BY: [&str; 4] = [
    "ApiError::invalid(",
    "ApiError::not_found(",
    "ApiError::forbidden(",
    ".detail(\"reason\",",
];

fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The text in quotes that follows, if one does.
fn quoted(text: &str) -> Option<&str> {
    let (reason, _) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(reason)
}

#[test]
fn every_reason_of_a_refused_request_is_explained() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let given: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| GIVEN_BY.iter().flat_map(|by| text.split(by).skip(1).filter_map(quoted)))
        .collect();
    assert!(given.len() > 30, "so few that the sources must have moved: {given:?}");
    let guide = include_str!("../../../docs/guide/errors.md");
    let rows = guide
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let explained: BTreeSet<&str> = rows.flat_map(|first| first.split('`').skip(1).step_by(2)).collect();

    let missing: Vec<_> = given.difference(&explained).collect();
    assert!(missing.is_empty(), "not explained: {missing:?}");
}
