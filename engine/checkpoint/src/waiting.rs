//! Commits that wait at the same time share a transaction, and with it the way to the disk.
//!
//! Whoever gets the turn to write commits for all who wait, itself included: there is no task and no delay, and one that
//! waits alone is written alone at once. Commits of one thread never share a transaction, so that each is refused or not by
//! what was there before.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use stepgraph::ThreadKey;
use tokio::sync::oneshot;

/// Most commits in one transaction.
const GROUP_MAX: usize = 64;

/// A commit that can share a transaction with those of other threads.
pub(crate) trait OfThread {
    fn thread(&self) -> &ThreadKey;
}

/// The commits that wait, oldest first. As many as there are callers. `W` is what one writes, `T` what becomes of it.
#[derive(Debug)]
pub(crate) struct Waiting<W, T>(Mutex<VecDeque<Arc<Job<W, T>>>>);

impl<W, T> Default for Waiting<W, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A commit that waits.
#[derive(Debug)]
pub(crate) struct Job<W, T> {
    pub(crate) barrier: W,
    /// Whether somebody may have written it and was gone before hearing of it.
    tried: AtomicBool,
    done: Mutex<Option<oneshot::Sender<T>>>,
}

/// Takes the commit out of those that wait when its caller has heard of it, or is gone.
pub(crate) struct Place<'w, W, T> {
    waiting: &'w Waiting<W, T>,
    job: Arc<Job<W, T>>,
    /// What became of it. An error: it was given up without a word.
    pub(crate) outcome: oneshot::Receiver<T>,
}

impl<W, T> Drop for Place<'_, W, T> {
    fn drop(&mut self) {
        self.waiting
            .jobs(|jobs| jobs.retain(|job| !Arc::ptr_eq(job, &self.job)));
    }
}

impl<W, T> Waiting<W, T> {
    fn jobs<R>(&self, look: impl FnOnce(&mut VecDeque<Arc<Job<W, T>>>) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stands a commit at the end of those that wait.
    pub(crate) fn enter(&self, barrier: W) -> Place<'_, W, T> {
        let (done, outcome) = oneshot::channel();
        let job = Arc::new(Job {
            barrier,
            tried: AtomicBool::new(false),
            done: Mutex::new(Some(done)),
        });
        self.jobs(|jobs| jobs.push_back(Arc::clone(&job)));
        Place {
            waiting: self,
            job,
            outcome,
        }
    }

    /// The next commits to share a transaction. They stay among those that wait until they are settled, so that a turn that
    /// is broken off loses nobody's.
    pub(crate) fn group(&self) -> Vec<Arc<Job<W, T>>>
    where
        W: OfThread,
    {
        self.jobs(|jobs| {
            let mut threads = HashSet::new();
            let one_each = jobs.iter().filter(|job| threads.insert(job.barrier.thread()));
            one_each.take(GROUP_MAX).map(Arc::clone).collect()
        })
    }

    pub(crate) fn settle(&self, job: &Arc<Job<W, T>>, outcome: T) {
        self.jobs(|jobs| jobs.retain(|waiting| !Arc::ptr_eq(waiting, job)));
        let done = job.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            // A caller that is gone has its commit all the same.
            let _ = done.send(outcome);
        }
    }
}

/// Notes that a group is about to be written, and says of each whether it was tried before. Said before anything is
/// written: a turn that is broken off cannot say it any more.
pub(crate) fn tried<W, T>(group: &[Arc<Job<W, T>>]) -> Vec<bool> {
    group
        .iter()
        .map(|job| job.tried.swap(true, Ordering::Relaxed))
        .collect()
}
