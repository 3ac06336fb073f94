//! Recorded cases once more, as typed graphs: written by hand in the words a user would use, with what each call must come to
//! read from the case's own file. Left out are cases in which the strict engine differs on purpose, see
//! `docs/guide/compat.md`.
#![expect(clippy::many_single_char_names, reason = "nodes are called as in the recorded cases")]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod typed {
    pub(crate) mod data;
    pub(crate) mod flow;
    pub(crate) mod script;
    pub(crate) mod stops;
    pub(crate) mod time;
}

use std::collections::BTreeSet;

use typed::{data, flow, script, stops, time};

#[test]
fn at_least_twenty_cases_stand_again_and_every_family_is_among_them() {
    let typed: Vec<&str> = [flow::CASES, stops::CASES, stops::UNBUILT, data::CASES, time::CASES].concat();
    assert!(typed.len() >= 20, "{} cases", typed.len());
    assert_eq!(
        typed.iter().collect::<BTreeSet<_>>().len(),
        typed.len(),
        "one case stands twice"
    );
    let here: BTreeSet<String> = typed.iter().map(|name| script::family(name)).collect();
    assert_eq!(here, script::families());
}
