//! Implementations that need no server and no key: what a clone runs on.

mod cache;
mod extractive;
mod records;
mod scripted;
mod vectors;

pub use cache::MokaCache;
pub use extractive::{Extractive, NO_INFORMATION};
pub use records::SqliteRecords;
pub use scripted::Scripted;
pub(super) use vectors::{B, CHUNKS_TELLING, Indexed, K1, check_chunks, idf, unit, unprepared, wrong_vector};
pub use vectors::{Reindex, Reindexed, SqliteVectors};
