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

use sqlx::SqliteConnection;
use stepgraph::{
    CheckpointError,
    checkpoint::{Epoch, Seq},
};
use tokio::sync::oneshot;

use super::{
    barrier::{self, Barrier, SIZES, Shape},
    failure, write,
    writer::{Turn, Writer},
};
use crate::row::stored_seq;

/// Most commits in one transaction.
const GROUP_MAX: usize = 64;

/// The commits that wait, oldest first. As many as there are callers.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<VecDeque<Arc<Job>>>);

/// A commit that waits.
#[derive(Debug)]
struct Job {
    barrier: Barrier,
    /// Whether somebody may have written it and was gone before hearing of it.
    tried: AtomicBool,
    done: Mutex<Option<oneshot::Sender<Outcome>>>,
}

/// The epoch and the head. A beginning without one has found the thread made already, and has done nothing.
type Outcome = Result<(Epoch, Option<Seq>), CheckpointError>;

/// Takes the commit out of those that wait when its caller has heard of it, or is gone.
struct Place<'w> {
    waiting: &'w Waiting,
    job: Arc<Job>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting
            .jobs(|jobs| jobs.retain(|job| !Arc::ptr_eq(job, &self.job)));
    }
}

impl Waiting {
    fn jobs<T>(&self, look: impl FnOnce(&mut VecDeque<Arc<Job>>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next commits to share a transaction. They stay among those that wait until they are settled, so that a turn that
    /// is broken off loses nobody's.
    fn group(&self) -> Vec<Arc<Job>> {
        self.jobs(|jobs| {
            let mut threads = HashSet::new();
            let one_each = jobs.iter().filter(|job| threads.insert(&job.barrier.key));
            one_each.take(GROUP_MAX).map(Arc::clone).collect()
        })
    }

    fn settle(&self, job: &Arc<Job>, outcome: Outcome) {
        self.jobs(|jobs| jobs.retain(|waiting| !Arc::ptr_eq(waiting, job)));
        let done = job.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            // A caller that is gone has its commit all the same.
            let _ = done.send(outcome);
        }
    }
}

impl Writer {
    /// Writes a commit, alone or with others.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the commit is not written, or another caller is writing it just now. Dropped while it writes
    /// for others, what was not finished is done again by the next of them.
    pub(super) async fn commit(&self, barrier: Barrier) -> Outcome {
        let (done, mut outcome) = oneshot::channel();
        let job = Arc::new(Job {
            barrier,
            tried: AtomicBool::new(false),
            done: Mutex::new(Some(done)),
        });
        let waiting = self.waiting();
        waiting.jobs(|jobs| jobs.push_back(Arc::clone(&job)));
        let _place = Place { waiting, job };
        loop {
            tokio::select! {
                biased;
                outcome = &mut outcome => return outcome.unwrap_or_else(|_| Err(failure::unavailable(
                    "a commit was given up by its store: try again".to_owned(),
                    None,
                ))),
                turn = self.turn() => self.write_group(turn?).await,
            }
        }
    }

    async fn write_group(&self, mut turn: Turn<'_>) {
        let group = self.waiting().group();
        // Said before anything is written: a turn that is broken off cannot say it any more.
        let tried: Vec<bool> = group
            .iter()
            .map(|job| job.tried.swap(true, Ordering::Relaxed))
            .collect();
        match (written(turn.connection(), &group).await, group.as_slice()) {
            (Ok(heads), _) => {
                for ((job, head), tried) in group.iter().zip(heads).zip(tried) {
                    let outcome = told(turn.connection(), job, head, tried).await;
                    self.waiting().settle(job, outcome);
                }
                turn.leave();
            }
            (Err(error), [only]) => self.waiting().settle(only, Err(error)),
            // What one of them met is no matter of the others: each is written alone, on a connection that is not in doubt.
            (Err(_), several) => {
                for job in several {
                    let outcome = self.write_alone(&mut turn, job).await;
                    self.waiting().settle(job, outcome);
                }
            }
        }
    }

    async fn write_alone(&self, turn: &mut Turn<'_>, job: &Arc<Job>) -> Outcome {
        turn.reconnect(self).await?;
        let heads = written(turn.connection(), std::slice::from_ref(job)).await?;
        told(turn.connection(), job, heads.first().copied().flatten(), true).await
    }
}

/// Writes all of them in one transaction and gives of each that was not refused the new head, or the epoch where it has
/// begun a thread.
async fn written(connection: &mut SqliteConnection, group: &[Arc<Job>]) -> Result<Vec<Option<i64>>, CheckpointError> {
    let mut order: Vec<usize> = (0..group.len()).collect();
    let job = |at: &usize| group.get(*at);
    let shape = |at: &usize| job(at).map(|job| job.barrier.shape());
    order.sort_by_key(shape);
    let alike = order.chunk_by(|a, b| shape(a) == shape(b));
    let calls: Vec<&[usize]> = alike.flat_map(sized).collect();
    let mut heads = vec![None; group.len()];
    for (number, call) in calls.iter().enumerate() {
        let barriers: Vec<&Barrier> = call.iter().filter_map(job).map(|job| &job.barrier).collect();
        let ends = (number == 0, number + 1 == calls.len());
        let new = barrier::write(connection, &barriers, ends).await?;
        for (at, head) in call.iter().zip(new) {
            if let Some(place) = heads.get_mut(*at) {
                *place = head;
            }
        }
    }
    Ok(heads)
}

/// Cuts into pieces of the sizes that there are statements for, the largest first.
fn sized(mut rest: &[usize]) -> impl Iterator<Item = &[usize]> {
    std::iter::from_fn(move || {
        let size = SIZES.iter().rev().find(|size| **size <= rest.len())?;
        let (piece, others) = rest.split_at(*size);
        rest = others;
        Some(piece)
    })
}

/// What became of a commit. One that an earlier turn may have written already is known by the name of the head.
async fn told(connection: &mut SqliteConnection, job: &Job, head: Option<i64>, was_tried: bool) -> Outcome {
    let Barrier {
        key, epoch, expected, ..
    } = &job.barrier;
    if job.barrier.shape() == Shape::Begun {
        let begun = match head {
            Some(epoch) => Some(Epoch(epoch.unsigned_abs())),
            None if was_tried => write::begun(connection, key, job.barrier.id()).await?,
            None => None,
        };
        return Ok((begun.unwrap_or(Epoch(0)), begun.map(|_| Seq(1))));
    }
    if let Some(head) = head {
        return Ok((*epoch, Some(stored_seq(key, head)?)));
    }
    let refusal = write::refusal(connection, key, *epoch, *expected).await?;
    if was_tried
        && let CheckpointError::Conflict { found: Some(found), .. } = &refusal
        && write::is_named(connection, key, *found, job.barrier.id()).await?
    {
        return Ok((*epoch, Some(*found)));
    }
    Err(refusal)
}
