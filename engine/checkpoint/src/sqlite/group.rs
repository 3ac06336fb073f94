//! Commits that wait share a turn at writing: see [`waiting`](crate::waiting).

use std::sync::Arc;

use sqlx::SqliteConnection;
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Epoch, Seq},
};

use super::{
    barrier::{self, Barrier, SIZES, Shape},
    failure, values, write,
    writer::{Turn, Writer},
};
use crate::{
    row::stored_seq,
    waiting::{self, OfThread},
};

/// The epoch and the head. A beginning without one has found the thread made already, and has done nothing.
type Outcome = Result<(Epoch, Option<Seq>), CheckpointError>;

pub(super) type Waiting = waiting::Waiting<Barrier, Outcome>;
type Job = waiting::Job<Barrier, Outcome>;

impl OfThread for Barrier {
    fn thread(&self) -> &ThreadKey {
        &self.key
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
        let mut place = self.waiting().enter(barrier);
        loop {
            tokio::select! {
                biased;
                outcome = &mut place.outcome => return outcome.unwrap_or_else(|_| Err(failure::unavailable(
                    "a commit was given up by its store: try again".to_owned(),
                    None,
                ))),
                turn = self.turn() => self.write_group(turn?).await,
            }
        }
    }

    async fn write_group(&self, mut turn: Turn<'_>) {
        let group = self.waiting().group();
        let tried = waiting::tried(&group);
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
    let has_values = group.iter().any(|job| !job.barrier.values().is_empty());
    for (number, call) in calls.iter().enumerate() {
        let barriers: Vec<&Barrier> = call.iter().filter_map(job).map(|job| &job.barrier).collect();
        let ends = (number == 0, number + 1 == calls.len() && !has_values);
        let new = barrier::write(connection, &barriers, ends).await?;
        for (at, head) in call.iter().zip(new) {
            if let Some(place) = heads.get_mut(*at) {
                *place = head;
            }
        }
    }
    if has_values {
        for (job, _) in group.iter().zip(&heads).filter(|(_, head)| head.is_some()) {
            values::write(connection, &job.barrier.key, None, job.barrier.values()).await?;
        }
        let commit = sqlx::query("COMMIT").execute(connection).await;
        commit.map_err(failure::anywhere)?;
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
