//! The server by its wire: every route without a socket, and what needs one over a real one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop, and may say what it does"
)]

mod access;
mod alerts;
mod chat;
mod deleted;
mod documents;
mod fakes;
mod graphs;
mod health;
mod house;
mod jobs;
mod openapi;
mod provider;
mod reasons;
mod secrets;
mod served;
mod socket;
mod stream;
mod surface;
mod threads;
mod traces;
mod two_tenants;
mod whole;
