//! Recorded cases of another engine, run on this one: see `tests/conformance/README.md`.

mod body;
mod compare;
mod expr;
mod graph;
mod report;
mod session;
mod stream;

pub use self::{
    compare::differences,
    report::{Report, Verdict, cases, judge, run_directory},
    session::{Store, run_case},
};
