//! What came out of the suite.

use std::fmt;

/// What was found about one fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not; what was seen instead.
    Failed(String),
    /// It was not checked; why.
    Skipped(String),
}

/// The verdict on each fact, by name. Prints as a list with a sum at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    verdicts: Vec<(String, Verdict)>,
}

impl Report {
    pub(super) fn add(&mut self, name: &str, verdict: Verdict) {
        self.verdicts.push((name.to_owned(), verdict));
    }

    /// Each fact's name and verdict, in the order checked.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.verdicts.iter().map(|(name, verdict)| (name.as_str(), verdict))
    }

    /// Names of the facts that were checked, whether they hold or not.
    pub fn executed(&self) -> impl Iterator<Item = &str> {
        self.named(|verdict| !matches!(verdict, Verdict::Skipped(_)))
    }

    /// Names of the facts that do not hold.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.named(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// Names of the facts that were left out.
    pub fn skipped(&self) -> impl Iterator<Item = &str> {
        self.named(|verdict| matches!(verdict, Verdict::Skipped(_)))
    }

    /// Whether facts were checked and all of them hold.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.executed().next().is_some() && self.failed().next().is_none()
    }

    fn named(&self, wanted: fn(&Verdict) -> bool) -> impl Iterator<Item = &str> {
        self.verdicts()
            .filter(move |(_, verdict)| wanted(verdict))
            .map(|(name, _)| name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in self.verdicts() {
            let sentence = name.replace('_', " ");
            match verdict {
                Verdict::Passed => writeln!(f, "passed   {sentence}")?,
                Verdict::Failed(seen) => writeln!(f, "FAILED   {sentence}: {seen}")?,
                Verdict::Skipped(reason) => writeln!(f, "skipped  {sentence}: {reason}")?,
            }
        }
        write!(
            f,
            "{} executed, {} failed, {} skipped",
            self.executed().count(),
            self.failed().count(),
            self.skipped().count()
        )
    }
}
