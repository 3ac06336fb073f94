//! What a store of rows promises of a finished commit.

/// What a finished commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Power loss: each commit waits for the disk (SQLite `synchronous = FULL`, PostgreSQL `synchronous_commit = on`).
    #[default]
    Full,
    /// A crash of the process. Power loss may take the newest commits, never part of one (SQLite `synchronous = NORMAL`,
    /// PostgreSQL `synchronous_commit = off`).
    Normal,
}
