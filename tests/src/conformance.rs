//! Recorded cases of another engine, run on this one: see `tests/conformance/README.md`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a harness stops at what it did not expect, and a panic is its case's failure"
)]

mod body;
mod compare;
mod expr;
mod fold;
mod graph;
mod late;
mod report;
mod session;
mod stream;

pub use self::{
    compare::differences,
    fold::folds,
    late::Ground,
    report::{Report, Verdict, cases, judge, run_directory},
    session::{Store, run_case},
};
