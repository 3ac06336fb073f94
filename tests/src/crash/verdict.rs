//! What the matrix found.

use std::fmt;

/// Points that a run cannot come to in a durability, with the reason: executed is the grid without these.
pub const UNREACHED: [(&str, &str, &str); 3] = [
    ("before-output", "exit", UNRECORDED),
    ("during-output", "exit", UNRECORDED),
    ("after-output", "exit", UNRECORDED),
];

const UNRECORDED: &str = "the outputs of a step under way are not recorded";

/// What became of all cases.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// How many processes were killed and their threads gone on with.
    pub killed: u32,
    /// Cases with another point than the first of its name that the run ended before.
    pub survived: u32,
    /// Cases left out by name, with the reason.
    pub left_out: Vec<String>,
    /// What was not as it should be.
    pub failures: Vec<String>,
}

impl Report {
    /// Whether processes were killed, and nothing was lost or done twice.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.killed > 0 && self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "FAILED {failure}")?;
        }
        for left_out in &self.left_out {
            writeln!(f, "left out: {left_out}")?;
        }
        write!(
            f,
            "{} killed, {} ended before their point, {} failed, {} left out by name",
            self.killed,
            self.survived,
            self.failures.len(),
            self.left_out.len()
        )
    }
}
