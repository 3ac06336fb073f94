//! Commits that wait share a statement, and with it the way to the server and to its disk: see [`waiting`](crate::waiting).
//!
//! A thread whose row another holds is passed over, so that nobody waits for it but its own writer; and of a commit that was
//! not written its caller finds out by itself why. So a statement of many either does what it says or does nothing, and is
//! never asked for reasons.

use std::{pin::pin, sync::Arc, time::Duration};

use sqlx::PgPool;
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Commit, Epoch, NewCheckpoint, Seq},
};
use tokio::sync::Mutex;

use super::{
    Attempt, failure,
    shared::{self, Barrier},
};
use crate::{
    row::{stored_seq, unavailable},
    waiting::{self, OfThread},
};

/// How many statements of commits are under way at a time: one travels while the server works on another.
const LINES: usize = 2;

/// How long a commit waits for the others before it goes by itself. Whoever has the turn may have been left lying by its own
/// caller, who waits for this commit perhaps.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is longer goes to the server by itself, so that a statement of many stays of a size.
const SHARED_BYTES_MAX: usize = 64 << 10;

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Told {
    /// It is written: the epoch, and the new head.
    Written(Epoch, Seq),
    /// Its thread was not as expected, or another held it, or the others' statement failed: it is to be tried by itself.
    Alone(Attempt),
}

/// Where commits wait for each other.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begin: Line,
    go_on: [Line; LINES],
}

/// One statement at a time.
#[derive(Debug, Default)]
struct Line {
    turn: Mutex<()>,
    waiting: waiting::Waiting<Barrier, Outcome>,
}

type Outcome = Result<Told, CheckpointError>;
type Job = waiting::Job<Barrier, Outcome>;

impl OfThread for Barrier {
    fn thread(&self) -> &ThreadKey {
        &self.key
    }
}

impl Lines {
    /// The first commit of a thread, which makes and claims it, if it is one that others can share a statement with.
    pub(super) fn beginning(key: &ThreadKey, expected: Option<Seq>, commit: &Commit) -> Option<Barrier> {
        let is_first = expected.is_none() && commit.run.is_some();
        let barrier = is_first
            .then(|| Self::going_on(key, Epoch(0), None, commit))
            .flatten()?;
        Some(Barrier {
            begins: true,
            ..barrier
        })
    }

    /// A later one.
    pub(super) fn going_on(key: &ThreadKey, epoch: Epoch, expected: Option<Seq>, commit: &Commit) -> Option<Barrier> {
        let new = commit.checkpoint.as_ref().filter(|new| is_shared(commit, new))?;
        Some(Barrier {
            key: key.clone(),
            epoch,
            expected,
            new: new.clone(),
            mark: commit.run.clone(),
            begins: false,
        })
    }

    /// Writes a commit with those that wait beside it.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the commit is not written, or another caller is writing it just now. Dropped while it writes
    /// for others, what was not finished is done again by the next of them.
    pub(super) async fn commit(&self, pool: &PgPool, barrier: Barrier) -> Outcome {
        let line = self.line(&barrier);
        let mut place = line.waiting.enter(barrier);
        let mut patience = pin!(tokio::time::sleep(PATIENCE));
        loop {
            tokio::select! {
                biased;
                outcome = &mut place.outcome => return outcome.unwrap_or_else(|_| Ok(Told::Alone(Attempt::Second))),
                _turn = line.turn.lock() => line.write(pool).await,
                // Another may be writing it just now: then this finds it written.
                () = &mut patience => return Ok(Told::Alone(Attempt::Second)),
            }
        }
    }

    /// The same one for all commits of a thread.
    fn line(&self, barrier: &Barrier) -> &Line {
        if barrier.begins {
            return &self.begin;
        }
        let thread = barrier.key.thread.as_str().bytes();
        let at = thread.fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        self.go_on.get(at % LINES).unwrap_or(&self.begin)
    }
}

fn is_shared(commit: &Commit, new: &NewCheckpoint) -> bool {
    let alone = commit.parent.is_none() && commit.records.is_empty() && commit.outbox.is_empty();
    alone && new.payload.bytes().len() + new.frontier.len() <= SHARED_BYTES_MAX
}

impl Line {
    async fn write(&self, pool: &PgPool) {
        let mut connection = match pool.acquire().await.map_err(failure::anywhere) {
            Ok(connection) => connection,
            Err(error) => {
                // All who wait wait for the same, and have waited as long as this one.
                for job in self.waiting.group() {
                    self.waiting.settle(&job, Err(unavailable(said(&error), None)));
                }
                return;
            }
        };
        let mut group = self.waiting.group();
        // Two groups that make the same threads wait for each other in one order.
        group.sort_by(|a, b| name(a).cmp(&name(b)));
        let tried = waiting::tried(&group);
        let barriers: Vec<&Barrier> = group.iter().map(|job| &job.barrier).collect();
        let written = shared::write(&mut connection, &barriers).await;
        let lost = written.as_ref().is_err_and(failure::is_lost);
        if let Err(error) = &written {
            tracing::debug!(%error, commits = group.len(), "a statement of commits failed: each is tried by itself");
        }
        let mut numbers = written.unwrap_or_default().into_iter();
        for (job, tried) in group.iter().zip(tried) {
            let outcome = match numbers.next().flatten() {
                Some(number) => told(&job.barrier, number),
                None => Ok(Told::Alone(if lost || tried {
                    Attempt::Second
                } else {
                    Attempt::First
                })),
            };
            self.waiting.settle(job, outcome);
        }
    }
}

fn name(job: &Arc<Job>) -> (&str, &str, &str) {
    let key = &job.barrier.key;
    (key.tenant.as_str(), key.thread.as_str(), key.namespace.as_str())
}

fn told(barrier: &Barrier, number: i64) -> Outcome {
    Ok(if barrier.begins {
        Told::Written(Epoch(number.unsigned_abs()), Seq(1))
    } else {
        Told::Written(barrier.epoch, stored_seq(&barrier.key, number)?)
    })
}

/// What an error has to say to each of many.
fn said(error: &CheckpointError) -> String {
    match error {
        CheckpointError::Unavailable { message, .. } => message.clone(),
        other => other.to_string(),
    }
}
