//! The engine against a model of it: random graphs, and what is done to a thread of each, on both; see
//! `docs/guide/contribute-tests.md`.
//!
//! The model is plain data and plain functions. It shares no code with the engine; of a case's own code (what nodes
//! write, ask and fail with, where branches lead) there is one form for both.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a harness stops at what it did not expect, and a panic is its seed's failure"
)]

mod body;
mod build;
mod case;
mod cut;
mod dice;
mod engine;
mod generate;
mod merge;
mod mutation;
mod plan;
mod reference;
mod run;
mod seeds;
mod shrink;
mod store;
mod thread;
mod trial;
mod unfinished;
mod view;

pub use self::{
    mutation::Mutation,
    seeds::{Failure, finds, keep_seed, kept_seeds, run_seed, run_seeds, tell_seed},
};
