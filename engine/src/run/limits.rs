//! What a task waits for before each attempt: the run's own limit, then its node's limiters.

use std::{num::NonZeroU32, panic::AssertUnwindSafe};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    error::NodePanic,
    step::{End, Shared, attempt, panic_message},
};
use crate::{
    graph::{NodeSpec, Payload},
    node::{Held, Limiter, NodeError, PermitHeld, Seat, TaskContext},
    state::State,
};

/// How many tasks of one run may be in flight. A graph inside a node has a limit of its own with the same number: its tasks
/// must not wait for the one that waits for them.
pub(crate) struct RunLimit {
    pub(crate) at_once: NonZeroU32,
    gate: Semaphore,
}

impl RunLimit {
    pub(crate) fn new(at_once: NonZeroU32) -> Self {
        let permits = usize::try_from(at_once.get()).unwrap_or(usize::MAX);
        Self {
            at_once,
            gate: Semaphore::new(permits.min(Semaphore::MAX_PERMITS)),
        }
    }
}

/// What an attempt holds while it runs.
struct Permits<'a> {
    _run: Option<SemaphorePermit<'a>>,
    seats: Vec<Seat>,
}

/// One attempt, within the limits that it is under.
pub(super) async fn within<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
    payload: Option<&Payload>,
) -> Result<End<S>, NodeError> {
    // A replay calls nothing, and does not stand in the way of what runs.
    if shared.run.replay.is_some() || (shared.run.limit.is_none() && spec.around.limits.is_empty()) {
        return attempt(shared, spec, ctx, payload).await;
    }
    // Boxed, so that a task without limits is not the larger for it.
    Box::pin(async move {
        let permits = tokio::select! {
            biased;
            () = ctx.stopped() => return Ok(shared.stopped()),
            () = shared.run.timed_out() => return Ok(End::TimeLimit),
            permits = enter(shared, spec, ctx) => permits?,
        };
        let outer = shared.run.held.clone();
        let held = permits
            .seats
            .iter()
            .fold(outer, |held, seat| Some(Held::with(held, seat)));
        let ctx = TaskContext { held, ..ctx.clone() };
        attempt(shared, spec, &ctx, payload).await
    })
    .await
}

/// Waits for every permit, in an order that is the same for every task.
async fn enter<'a, S: State>(
    shared: &'a Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
) -> Result<Permits<'a>, NodeError> {
    let run = match &shared.run.limit {
        // The gate is never closed.
        Some(limit) => limit.gate.acquire().await.ok(),
        None => None,
    };
    let mut wanted: Vec<(Limiter, Option<String>)> = Vec::with_capacity(spec.around.limits.len());
    for limit in &spec.around.limits {
        let key = || limit.key.as_ref().map(|key| key(&shared.state, &ctx.run.key.tenant));
        let key = std::panic::catch_unwind(AssertUnwindSafe(key)).map_err(|panic| {
            NodeError::terminal(NodePanic {
                message: panic_message(panic.as_ref()),
            })
        })?;
        wanted.push((limit.limiter.clone(), key));
    }
    let place = |(limiter, key): &(Limiter, Option<String>)| (limiter.number(), key.clone());
    wanted.sort_by_key(place);
    wanted.dedup_by_key(|wanted| place(wanted));
    let mut seats = Vec::with_capacity(wanted.len());
    for (limiter, key) in wanted {
        if Held::has(shared.run.held.as_ref(), &limiter, key.as_deref()) {
            return Err(NodeError::terminal(PermitHeld {
                limiter: limiter.name().to_owned(),
            }));
        }
        let mut seat = limiter.seat(key.as_deref())?;
        seat.take().await;
        seats.push(seat);
    }
    Ok(Permits { _run: run, seats })
}
