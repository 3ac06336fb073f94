//! How much of a thread's past is kept, and taking out the rest: in small transactions, beside whatever runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{At, CheckpointError, CheckpointInfo, Checkpointer, Page, Seq, Thinning};
use crate::id::{Namespace, TenantId, ThreadId, ThreadKey};

/// How many checkpoints are looked at, and so at most removed, in one transaction.
const BATCH: u32 = 256;

/// How many names of threads or of graphs inside them are read at a time.
const NAMES: u32 = 256;

/// Which checkpoints of a thread stay: those that any of its rules keeps. The head of every branch stays anyway, and so
/// does what is [tagged](Checkpointer::tag).
///
/// ```
/// use stepgraph::checkpoint::Keep;
///
/// let keep = Keep::last(20).and_days(30);
/// # assert_eq!(keep, Keep::days(30).and_last(20));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Keep {
    last: u32,
    age: Option<Duration>,
}

impl Keep {
    /// The newest so many of each thread, and of each graph inside it.
    pub const fn last(checkpoints: u32) -> Self {
        Self {
            last: checkpoints,
            age: None,
        }
    }

    /// Those that are at most so many days old.
    pub const fn days(days: u32) -> Self {
        Self::heads().and_days(days)
    }

    /// Heads and tags, nothing else.
    pub const fn heads() -> Self {
        Self { last: 0, age: None }
    }

    /// Also the newest so many.
    pub const fn and_last(mut self, checkpoints: u32) -> Self {
        self.last = checkpoints;
        self
    }

    /// Also those that are at most so many days old.
    pub const fn and_days(mut self, days: u32) -> Self {
        self.age = Some(Duration::from_secs(days as u64 * 24 * 60 * 60));
        self
    }

    /// The moment before which age alone keeps nothing.
    fn since(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let age = TimeDelta::from_std(self.age?).unwrap_or(TimeDelta::MAX);
        Some(now.checked_sub_signed(age).unwrap_or(DateTime::<Utc>::MIN_UTC))
    }
}

/// What a thinning has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thinned {
    /// How many checkpoints are gone.
    pub removed: u64,
    /// How many were made to stand on their own, because their parents are gone.
    pub rebased: u64,
}

impl std::ops::AddAssign for Thinned {
    fn add_assign(&mut self, other: Self) {
        self.removed += other.removed;
        self.rebased += other.rebased;
    }
}

/// Takes out of a thread, and of the graphs inside it, what a rule does not keep. A checkpoint whose parent goes is
/// rebased: it reads as before, and is then the first of what is left of its line. The work is done newest first in
/// transactions of bounded size, so that breaking off anywhere leaves a thread that is whole; calling it again goes on. It
/// needs no claim and may run beside runs of the thread.
///
/// ```
/// use stepgraph::{Checkpointer, Memory, TenantId, ThreadId, ThreadKey, checkpoint::{self, Keep}};
///
/// # async fn nightly(store: &dyn Checkpointer, thread: &ThreadKey) -> Result<(), stepgraph::CheckpointError> {
/// let thinned = checkpoint::thin(store, thread, Keep::last(20), chrono::Utc::now()).await?;
/// println!("{} checkpoints are gone", thinned.removed);
/// # Ok(()) }
/// ```
///
/// # Errors
/// What the store says; [`CheckpointError::InUse`] if a branch or a tag was set on a checkpoint while it was about to go.
pub async fn thin(
    store: &dyn Checkpointer,
    thread: &ThreadKey,
    keep: Keep,
    now: DateTime<Utc>,
) -> Result<Thinned, CheckpointError> {
    let root = ThreadKey::new(thread.tenant.clone(), thread.thread.clone());
    let mut thinned = thin_line(store, &root, keep, now).await?;
    let mut after = Namespace::ROOT;
    loop {
        let inner = store.inner(&root, &after, NAMES).await?;
        let Some(last) = inner.last().cloned() else {
            return Ok(thinned);
        };
        for namespace in inner {
            let key = ThreadKey {
                namespace,
                ..root.clone()
            };
            thinned += thin_line(store, &key, keep, now).await?;
        }
        after = last;
    }
}

/// The same for so many threads of a tenant, by name from the one behind `after`; also the name to go on after, or `None`
/// when the last has been reached.
///
/// # Errors
/// What the store says.
pub async fn thin_tenant(
    store: &dyn Checkpointer,
    tenant: &TenantId,
    keep: Keep,
    now: DateTime<Utc>,
    (after, threads_max): (Option<&ThreadId>, u32),
) -> Result<(Thinned, Option<ThreadId>), CheckpointError> {
    let threads = store.threads(tenant, after, threads_max).await?;
    let mut thinned = Thinned::default();
    let last = threads.last().cloned();
    for thread in threads {
        thinned += thin(store, &ThreadKey::new(tenant.clone(), thread), keep, now).await?;
    }
    Ok((thinned, last))
}

/// One graph of the nest.
async fn thin_line(
    store: &dyn Checkpointer,
    key: &ThreadKey,
    keep: Keep,
    now: DateTime<Utc>,
) -> Result<Thinned, CheckpointError> {
    let mut line = Line {
        spared: spared(store, key).await?,
        keep,
        since: keep.since(now),
        seen: 0,
        orphans: BTreeMap::new(),
    };
    let mut thinned = Thinned::default();
    let mut page = Page {
        before: None,
        limit: BATCH,
    };
    loop {
        let infos = store.list(key, page).await?;
        let Some(oldest) = infos.last() else {
            return Ok(thinned);
        };
        page.before = Some(oldest.seq);
        let (removed, children) = line.sort(&infos);
        if removed.is_empty() {
            continue;
        }
        let mut rebased = Vec::with_capacity(children.len());
        for seq in children {
            if let Some(found) = store.get(key, At::Seq(seq)).await? {
                rebased.push((seq, found.parts));
            }
        }
        thinned += Thinned {
            removed: removed.len() as u64,
            rebased: rebased.len() as u64,
        };
        store.thin(key, Thinning { rebased, removed }).await?;
    }
}

/// What no rule may remove.
async fn spared(store: &dyn Checkpointer, key: &ThreadKey) -> Result<BTreeSet<Seq>, CheckpointError> {
    let branches = store.branches(key).await?.into_iter().map(|branch| branch.head);
    let tags = store.tags(key).await?.into_iter().map(|tag| tag.seq);
    Ok(branches.chain(tags).collect())
}

/// A walk from the newest checkpoint to the oldest.
struct Line {
    spared: BTreeSet<Seq>,
    keep: Keep,
    since: Option<DateTime<Utc>>,
    seen: u32,
    /// Of parents not reached yet, the children that stay.
    orphans: BTreeMap<Seq, Vec<Seq>>,
}

impl Line {
    fn stays(&self, info: &CheckpointInfo) -> bool {
        self.seen < self.keep.last
            || self.since.is_some_and(|since| info.created_at >= since)
            || self.spared.contains(&info.seq)
    }

    /// Which of a page go, and which children of theirs stay and are to be rebased.
    fn sort(&mut self, infos: &[CheckpointInfo]) -> (Vec<Seq>, Vec<Seq>) {
        let (mut removed, mut children) = (Vec::new(), Vec::new());
        for info in infos {
            let stays = self.stays(info);
            self.seen = self.seen.saturating_add(1);
            let own = self.orphans.remove(&info.seq).unwrap_or_default();
            if stays {
                if let Some(parent) = info.parent {
                    self.orphans.entry(parent).or_default().push(info.seq);
                }
            } else {
                removed.push(info.seq);
                children.extend(own);
            }
        }
        (removed, children)
    }
}
