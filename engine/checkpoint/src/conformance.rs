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
mod kept;
mod lists;
mod outbox;
mod owners;
mod records;
mod report;
mod retention;
mod roundtrips;
mod runs;
mod sizes;
mod tenants;
mod values;

use stepgraph::Checkpointer;

pub use self::report::{Report, Verdict};
use self::{
    ground::Fact,
    kept::{KeptFact, Opener},
    sizes::{Counted, SizeFact},
};

const GROUPS: [&[Fact]; 12] = [
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
    retention::FACTS,
    values::FACTS,
];

/// The names of all facts, in the order in which they are checked.
pub fn names() -> impl Iterator<Item = &'static str> {
    facts().map(|fact| fact.name)
}

/// The names of those about tags, thinning and erasing, which a store may leave out: its verbs then say
/// `checkpoint::unsupported`.
pub fn retention_names() -> impl Iterator<Item = &'static str> {
    retention::FACTS.iter().map(|fact| fact.name)
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
        let verdict = match reason(fact.name, left_out) {
            Some(reason) => Verdict::Skipped(reason),
            None => verdict((fact.holds)(&make().await).await),
        };
        report.add(fact.name, verdict);
    }
    refuse_unknown(&mut report, left_out, names);
    report
}

/// The names of the facts about stores that outlive their handle, in the order in which they are checked.
pub fn kept_names() -> impl Iterator<Item = &'static str> {
    kept::FACTS.iter().map(|fact| fact.name)
}

/// Checks what holds over the closing and opening of a store that outlives its handle, and between two openings of one.
/// `open` is given a name: for a new one it opens a fresh and empty store, for one given before the same store again, of
/// which an earlier opening may still be there.
///
/// A store that keeps nothing beyond its handle, such as the one in memory, has no such facts.
///
/// ```
/// use stepgraph_checkpoint::{Sqlite, conformance};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let open = async |name: &str| Sqlite::open(folder.path().join(name)).await.expect("a file");
/// let report = conformance::check_kept(open).await;
/// assert!(report.passed(), "{report}");
/// # Ok(()) }
/// ```
pub async fn check_kept<F, S>(open: F) -> Report
where
    F: AsyncFn(&str) -> S,
    S: Checkpointer,
{
    check_kept_except(open, &[]).await
}

/// The same but for some facts, each named with the reason why it is left out.
pub async fn check_kept_except<F, S>(open: F, left_out: &[(&str, &str)]) -> Report
where
    F: AsyncFn(&str) -> S,
    S: Checkpointer,
{
    let opener = Opener(open);
    let mut report = Report::default();
    for KeptFact { name, holds } in kept::FACTS {
        let verdict = match reason(name, left_out) {
            Some(reason) => Verdict::Skipped(reason),
            // The fact's name is the store's: each is different, and fit for a file, a schema or a prefix.
            None => verdict(holds(&opener, name).await),
        };
        report.add(name, verdict);
    }
    refuse_unknown(&mut report, left_out, kept_names);
    report
}

/// The names of the facts about the bytes that a store takes, in the order in which they are checked.
pub fn size_names() -> impl Iterator<Item = &'static str> {
    sizes::FACTS.iter().map(|fact| fact.name)
}

/// Checks what holds of the bytes that a store takes: that a large value is kept once a thread, compressed where that helps,
/// and goes with the last checkpoint that held it. `bytes` counts what a store takes now, without what it has made free;
/// `make` gives fresh and empty stores.
///
/// A store of which nobody can tell, and one that keeps each state whole, such as the one in memory, has no such facts.
///
/// ```
/// use sqlx::{Connection, SqliteConnection};
/// use stepgraph_checkpoint::{Sqlite, conformance};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (folder, files) = (tempfile::tempdir()?, std::cell::Cell::new(0));
/// // One fact after the other: the newest file is that of the store.
/// let newest = || folder.path().join(files.get().to_string());
/// let make = async || {
///     files.set(files.get() + 1);
///     Sqlite::open(newest()).await.expect("a file")
/// };
/// let bytes = async |_: &Sqlite| {
///     let used = "SELECT (page_count - freelist_count) * page_size \
///                 FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
///     let mut file = SqliteConnection::connect(&newest().display().to_string()).await.expect("the file");
///     let bytes: i64 = sqlx::query_scalar(used).fetch_one(&mut file).await.expect("a number");
///     bytes.unsigned_abs()
/// };
/// let report = conformance::check_sizes(make, bytes).await;
/// assert!(report.passed(), "{report}");
/// # Ok(()) }
/// ```
pub async fn check_sizes<F, S, B>(make: F, bytes: B) -> Report
where
    F: AsyncFn() -> S,
    S: Checkpointer,
    B: AsyncFn(&S) -> u64,
{
    let mut report = Report::default();
    for SizeFact { name, holds } in sizes::FACTS {
        let counted = Counted {
            store: make().await,
            bytes: &bytes,
        };
        report.add(name, verdict(holds(&counted).await));
    }
    report
}

fn verdict(found: ground::Found) -> Verdict {
    match found {
        Ok(()) => Verdict::Passed,
        Err(broken) => Verdict::Failed(broken.to_string()),
    }
}

fn reason(fact: &str, left_out: &[(&str, &str)]) -> Option<String> {
    let found = left_out.iter().find(|(name, _)| *name == fact);
    found.map(|(_, reason)| (*reason).to_owned())
}

fn refuse_unknown<I: Iterator<Item = &'static str>>(report: &mut Report, left_out: &[(&str, &str)], names: fn() -> I) {
    for (name, _) in left_out {
        if names().all(|fact| fact != *name) {
            report.add(name, Verdict::Failed("there is no such fact to leave out".to_owned()));
        }
    }
}
