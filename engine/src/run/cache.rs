//! A task within its node's cache: what the same node gave for the same question before is taken instead of running it.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    decode_record, encode_record,
    frontier::Bytes,
    limits,
    step::{End, Shared, StoredOutput},
    suspend::{restore_output, store_gotos},
    version::StoredRoute,
};
use crate::{
    cache::{CacheError, CacheKey, NodeCache},
    graph::{CachePolicy, NodeSpec, Output, Payload},
    node::{NodeError, TaskContext},
    state::State,
};

/// How long a task waits for its cache; what takes longer is a miss.
const CACHE_WAIT_MAX: Duration = Duration::from_secs(1);

/// An entry.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// By the graph's clock, in microseconds since 1970.
    until: i64,
    /// Hash of the others: what does not match was damaged.
    check: Uuid,
    body: Bytes,
}

/// One attempt, unless the cache has what it would give.
pub(super) async fn within<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
    payload: Option<&Payload>,
) -> Result<End<S>, NodeError> {
    match (&spec.around.cache, &shared.run.cache) {
        (Some(policy), Some(cache)) if shared.run.replay.is_none() => {
            Box::pin(cached(shared, spec, ctx, payload, policy, cache)).await
        }
        _ => limits::within(shared, spec, ctx, payload).await,
    }
}

async fn cached<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
    payload: Option<&Payload>,
    policy: &CachePolicy<S>,
    cache: &Arc<dyn NodeCache>,
) -> Result<End<S>, NodeError> {
    // What a person has answered is part of what the node reads, and of nobody else's question.
    let answered = || !shared.run.journal.answers(&ctx.id()).is_empty();
    let key = if answered() {
        None
    } else {
        key(shared, ctx, payload, policy)
    };
    let now = || shared.run.setting.clock.now();
    if let Some(key) = &key
        && let Some(bytes) = waited(key, cache.get(key)).await.flatten()
        && let Some(output) = read(shared, ctx.node, &bytes, now())
    {
        return Ok(End::Output(output));
    }
    let end = limits::within(shared, spec, ctx, payload).await?;
    if let (Some(key), End::Output(output)) = (&key, &end)
        && output.cancelled.is_none()
        && !answered()
        && let Some(bytes) = write(shared, ctx.node, output, now(), policy.ttl)
    {
        waited(key, cache.put(key, bytes, policy.ttl)).await;
    }
    Ok(end)
}

/// What the entry is found by; `None` if it cannot be made, which is a miss.
fn key<S: State>(
    shared: &Shared<S>,
    ctx: &TaskContext,
    payload: Option<&Payload>,
    policy: &CachePolicy<S>,
) -> Option<CacheKey> {
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| (policy.key)(&shared.state, payload)));
    let node = ctx.node_name();
    let Ok(Some(bytes)) = made else {
        tracing::warn!(thread = %ctx.run.key, %node, "a task's cache key could not be made, so it runs");
        return None;
    };
    let topology = &shared.parts.topology;
    Some(CacheKey {
        tenant: ctx.run.key.tenant.clone(),
        graph: topology.graph.clone(),
        node,
        hash: Uuid::new_v5(&topology.fingerprint, &bytes),
    })
}

/// What the cache has answered, or `None` if it has failed or taken too long.
async fn waited<T>(key: &CacheKey, call: impl Future<Output = Result<T, CacheError>>) -> Option<T> {
    match tokio::time::timeout(CACHE_WAIT_MAX, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(Ok(value))) => Some(value),
        Ok(Err(_panic)) => {
            tracing::error!(%key, "the node cache panicked");
            None
        }
        Ok(Ok(Err(error))) => {
            tracing::warn!(%key, %error, "the node cache failed");
            None
        }
        Err(_) => {
            tracing::warn!(%key, limit = ?CACHE_WAIT_MAX, "the node cache did not answer");
            None
        }
    }
}

fn read<S: State>(shared: &Shared<S>, node: usize, bytes: &[u8], now: DateTime<Utc>) -> Option<Output<S>> {
    let entry: Entry = decode_record(bytes).ok()?;
    if entry.check != check(entry.until, &entry.body.0) || entry.until <= now.timestamp_micros() {
        return None;
    }
    let stored: StoredOutput<S::Update> = decode_record(&entry.body.0).ok()?;
    let mut output = restore_output(&shared.parts, node, stored).ok()?;
    output.cached = true;
    Some(output)
}

fn write<S: State>(
    shared: &Shared<S>,
    node: usize,
    output: &Output<S>,
    now: DateTime<Utc>,
    ttl: Duration,
) -> Option<Arc<[u8]>> {
    let stored = StoredOutput {
        route: StoredRoute::of(&shared.parts.topology, node, output.route),
        also: StoredRoute::all(&shared.parts.topology, node, &output.also),
        goto: store_gotos(&shared.parts, &output.goto).ok()?,
        leave: output.leave.clone(),
        ..StoredOutput::of(&output.update)
    };
    let body = encode_record(&stored).ok()?;
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let until = now.timestamp_micros().saturating_add(ttl);
    let entry = Entry {
        until,
        check: check(until, &body),
        body: Bytes(body),
    };
    encode_record(&entry).ok()
}

fn check(until: i64, body: &[u8]) -> Uuid {
    Uuid::new_v5(&Uuid::from_u64_pair(0, until.cast_unsigned()), body)
}
