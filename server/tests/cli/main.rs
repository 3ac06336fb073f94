//! The `stepgraph` program as a user calls it: the real binary, a data folder of its own for each test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails; clippy knows tests by their attribute alone"
)]

mod support;

mod asking;
mod calling;
mod embedding;
mod extracting;
mod ingesting;
mod keeping;
mod leaving;
mod limits;
mod models;
mod retries;
mod sealing;
mod secrecy;
mod serving;
mod tenants;
mod traced;
