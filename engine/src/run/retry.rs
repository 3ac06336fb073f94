//! Attempts that outlive a crash: how many of a task's have failed, and when the next is due.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    decode_record, encode_record,
    event::EventKind,
    read::Retrying,
    step::{End, Shared},
};
use crate::{
    checkpoint::{RecordKind, TaskRecord},
    node::{Failure, NodeError, TaskContext},
    scrub::told,
    state::{State, StateError},
};

/// A failed attempt that another follows.
#[derive(Serialize, Deserialize)]
struct StoredAttempt {
    /// How many attempts have failed.
    failed: u32,
    /// When the next is due.
    due: DateTime<Utc>,
    /// How long it was to be waited for, in milliseconds: no clock that was set back makes it longer.
    wait: u64,
    /// Why the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

/// Goes on with the attempts that an earlier entry of the task has made, and waits out what is left of the wait. Gives
/// how the task ends if the run is to stop meanwhile.
pub(super) async fn pick_up<S: State>(shared: &Shared<S>, ctx: &mut TaskContext) -> Option<End<S>> {
    let journal = &shared.run.journal;
    if journal.is_empty() {
        return None;
    }
    let stored = match journal.decode::<StoredAttempt>(&ctx.id(), RecordKind::Attempt, "") {
        Ok(stored) => stored.filter(|stored| stored.failed > 0)?,
        Err(error) => return Some(End::failed(NodeError::terminal(error), ctx)),
    };
    ctx.attempt = stored.failed.saturating_add(1);
    let left = (stored.due - shared.run.setting.clock.now())
        .to_std()
        .unwrap_or_default();
    if left.is_zero() {
        return None;
    }
    wait(shared, ctx, left.min(Duration::from_millis(stored.wait))).await
}

/// Writes a failed attempt down, tells it, and waits for the next.
pub(super) async fn later<S: State>(
    shared: &Shared<S>,
    ctx: &TaskContext,
    error: &NodeError,
    delay: Duration,
) -> Option<End<S>> {
    let node = ctx.node_name();
    tracing::warn!(thread = %ctx.run.key, node = %node, attempt = ctx.attempt, error = told(error), ?delay, "a task failed and will be tried again");
    if ctx.run.store.is_some() {
        let record = match attempt_record(shared, ctx, error, delay) {
            Ok(record) => record,
            Err(error) => return Some(End::failed(NodeError::terminal(error), ctx)),
        };
        if let Err(error) = ctx.commit(vec![record]).await {
            return Some(End::unsaved(error));
        }
    }
    shared
        .tell(EventKind::Retry {
            node,
            attempt: ctx.attempt,
            error: told(error),
            delay,
        })
        .await;
    wait(shared, ctx, delay).await
}

fn attempt_record<S: State>(
    shared: &Shared<S>,
    ctx: &TaskContext,
    error: &NodeError,
    delay: Duration,
) -> Result<TaskRecord, StateError> {
    let due = chrono::TimeDelta::from_std(delay).unwrap_or(chrono::TimeDelta::MAX);
    let now = shared.run.setting.clock.now();
    let body = encode_record(&StoredAttempt {
        failed: ctx.attempt,
        due: now.checked_add_signed(due).unwrap_or(now),
        // Rounded up, so that a whole wait stays whole.
        wait: u64::try_from(delay.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
        failure: Some(Failure::of(error, ctx.attempt)),
    })?;
    Ok(record(ctx.id(), body))
}

/// Lets the count of a task begin anew: its last attempt has failed.
pub(super) fn forget(task: String) -> Result<TaskRecord, StateError> {
    let body = encode_record(&StoredAttempt {
        failed: 0,
        due: DateTime::UNIX_EPOCH,
        wait: 0,
        failure: None,
    })?;
    Ok(record(task, body))
}

/// A record of an attempt as readers of the thread see it.
pub(super) fn retrying(body: &[u8]) -> Result<Option<Retrying>, StateError> {
    let StoredAttempt {
        failed, due, failure, ..
    } = decode_record(body)?;
    Ok((failed > 0).then_some(Retrying { failed, due, failure }))
}

fn record(task: String, body: std::sync::Arc<[u8]>) -> TaskRecord {
    TaskRecord {
        task,
        kind: RecordKind::Attempt,
        key: String::new(),
        body,
    }
}

async fn wait<S: State>(shared: &Shared<S>, ctx: &TaskContext, delay: Duration) -> Option<End<S>> {
    tokio::select! {
        () = tokio::time::sleep(delay) => None,
        () = ctx.stopped() => Some(shared.stopped()),
        () = shared.run.timed_out() => Some(End::TimeLimit),
    }
}
