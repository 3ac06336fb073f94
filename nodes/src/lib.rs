//! Reusable nodes and the services they need.

pub mod chunk;
pub mod domains;
pub mod generate;
pub mod ingest;
pub mod language;
pub mod log;
pub mod parse;
pub mod prompt;
pub mod retrieve;
pub mod rewrite;
pub mod screen;
pub mod service;
mod services;
mod tokens;
pub mod trace;

pub use services::Services;
