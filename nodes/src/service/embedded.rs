//! Implementations that need no server and no key: what a clone runs on.

mod cache;
mod extractive;
mod records;
mod scripted;
mod vectors;

pub use vectors::SqliteVectors;
