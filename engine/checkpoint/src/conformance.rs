//! What "works" means for a [`Checkpointer`]: a table of named facts, to be run on any store.
//!
//! ```
//! use stepgraph::Memory;
//! use stepgraph_checkpoint::conformance;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let report = conformance::check(async || Memory::new()).await;
//! assert!(report.passed(), "{report}");
//! # }
//! ```
//!
//! The facts use nothing but the trait, so they hold for a store in another crate, or of another house, as they do for
//! ours. Each gets a store of its own. Those about many writers run their calls side by side in one task; a store that
//! works on threads of its own is thereby tried in true parallel.

mod branches;
mod chains;
mod commits;
mod ground;
mod lists;
mod outbox;
mod owners;
mod records;
mod report;
mod roundtrips;
mod runs;
mod tenants;

use stepgraph::Checkpointer;

use self::ground::Fact;
pub use self::report::{Report, Verdict};

const GROUPS: [&[Fact]; 10] = [
    roundtrips::FACTS,
    lists::FACTS,
    records::FACTS,
    commits::FACTS,
    owners::FACTS,
    tenants::FACTS,
    branches::FACTS,
    chains::FACTS,
    runs::FACTS,
    outbox::FACTS,
];

/// The names of all facts, in the order in which they are checked.
pub fn names() -> impl Iterator<Item = &'static str> {
    facts().map(|fact| fact.name)
}

fn facts() -> impl Iterator<Item = &'static Fact> {
    GROUPS.into_iter().flatten()
}

/// Checks every fact, each on a fresh and empty store from `make`.
pub async fn check<F, S>(make: F) -> Report
where
    F: AsyncFn() -> S,
    S: Checkpointer,
{
    check_except(make, &[]).await
}

/// Checks every fact but some, each named with the reason why it is left out. A name that is no fact's counts as
/// failed: it would leave out nothing.
pub async fn check_except<F, S>(make: F, left_out: &[(&str, &str)]) -> Report
where
    F: AsyncFn() -> S,
    S: Checkpointer,
{
    let mut report = Report::default();
    for fact in facts() {
        let verdict = match left_out.iter().find(|(name, _)| *name == fact.name) {
            Some((_, reason)) => Verdict::Skipped((*reason).to_owned()),
            None => match (fact.holds)(&make().await).await {
                Ok(()) => Verdict::Passed,
                Err(broken) => Verdict::Failed(broken.to_string()),
            },
        };
        report.add(fact.name, verdict);
    }
    for (name, _) in left_out {
        if facts().all(|fact| fact.name != *name) {
            report.add(name, Verdict::Failed("there is no such fact to leave out".to_owned()));
        }
    }
    report
}
