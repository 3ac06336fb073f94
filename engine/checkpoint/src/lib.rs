//! Stores for the checkpoints of `stepgraph`, and the suite that says what a store must do.
//!
//! | feature | gives |
//! |---|---|
//! | `sqlite` (default) | [`Sqlite`]: checkpoints in one file, each commit one transaction |
//! | `testing` | [`conformance`]: named facts about any [`Checkpointer`](stepgraph::Checkpointer), for stores of your own |
//!
//! The trait and the in-memory reference store live in `stepgraph` itself, which knows no driver.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "sqlite")]
mod row;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, Sqlite, SqliteOptions};
