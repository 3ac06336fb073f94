//! Reusable nodes and the services they need.

pub mod chunk;
pub mod language;
pub mod parse;
pub mod prompt;
pub mod service;
mod tokens;
