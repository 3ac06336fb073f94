//! Implementations that need no server and no key: what a clone runs on.

mod cache;
mod extractive;
mod records;
mod scripted;
mod vectors;

pub use cache::MokaCache;
pub use records::SqliteRecords;
