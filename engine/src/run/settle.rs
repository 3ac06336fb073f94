//! What becomes of a task whose node has failed for good: its handler takes over, or it has failed.

use std::sync::Arc;

use super::{
    encode_record,
    event::EventKind,
    items,
    plan::Seed,
    retry::forget,
    step::{End, Shared, attempts},
};
use crate::{
    checkpoint::{RecordKind, TaskRecord},
    graph::{OnFailure, Payload},
    node::{Calls, Caught, Failure, NodeError, NodeErrorKind, TaskContext},
    scrub::told,
    state::State,
};

/// Runs a task to its end. The one place where a final failure is decided.
pub(super) async fn settle<S: State>(
    shared: &Shared<S>,
    task: &Seed<Payload>,
    ctx: TaskContext,
    payload: Option<&Payload>,
) -> End<S> {
    let end = match shared.parts.topology.handler(task.node) {
        None => attempts(shared, ctx, payload).await,
        // In a box, so that only a graph with handlers has room for them.
        Some(handler) => Box::pin(handled(shared, handler, ctx, payload)).await,
    };
    close(shared, task, end).await
}

/// What a task's end means to the fan-out it is an item of, and to the step.
pub(super) async fn close<S: State>(shared: &Shared<S>, task: &Seed<Payload>, end: End<S>) -> End<S> {
    let end = items::settle(shared, task, end).await;
    if let (End::Failed { .. }, Some(cut), OnFailure::CancelSiblings) =
        (&end, &shared.cut, shared.parts.rules.on_failure)
    {
        cut.cancel();
    }
    end
}

/// Runs a task whose node has a handler. What was handed to it once stays handed to it: a crash goes on in the handler.
async fn handled<S: State>(shared: &Shared<S>, handler: usize, ctx: TaskContext, payload: Option<&Payload>) -> End<S> {
    let failure = match handed_over(shared, &ctx) {
        Ok(Some(failure)) => failure,
        Ok(None) => match attempts(shared, ctx.clone(), payload).await {
            // What a graph inside leaves for this one is meant for the graph, not for a handler.
            End::Failed { error, attempts, .. } if error.kind() != NodeErrorKind::Left => {
                match hand_over(shared, handler, &ctx, &error, attempts).await {
                    Ok(failure) => failure,
                    Err(end) => return end,
                }
            }
            end => return end,
        },
        Err(end) => return end,
    };
    let caught = Arc::new(Caught {
        node: ctx.node_name(),
        task: ctx.id(),
        failure,
        payload: payload.cloned(),
    });
    let mut handling = TaskContext {
        node: handler,
        send: None,
        attempt: 1,
        caught: Some(caught),
        ..ctx.clone()
    };
    // A task has one record of calls: that of the node that gave its output.
    if shared.run.replay.is_some() {
        handling.attempt = ctx.calls.as_ref().and_then(|calls| calls.attempt()).unwrap_or(1);
        handling.calls = ctx.calls;
    } else {
        handling.calls = Calls::of(&shared.run, || handling.id());
    }
    match attempts(shared, handling, None).await {
        End::Output(mut output) => {
            output.by = Some(handler);
            End::Output(output)
        }
        end => end,
    }
}

/// The failure that an earlier entry of the task has handed to a handler.
fn handed_over<S: State>(shared: &Shared<S>, ctx: &TaskContext) -> Result<Option<Failure>, End<S>> {
    let journal = &shared.run.journal;
    if journal.is_empty() {
        return Ok(None);
    }
    let failure = journal.failure(&ctx.id());
    let failure = failure.map_err(|error| End::failed(NodeError::terminal(error), ctx))?;
    Ok(failure.filter(|failure| failure.handler.is_some()))
}

/// Makes the failure durable before the handler begins.
async fn hand_over<S: State>(
    shared: &Shared<S>,
    handler: usize,
    ctx: &TaskContext,
    error: &NodeError,
    attempts: u32,
) -> Result<Failure, End<S>> {
    let name = shared.parts.topology.name(handler);
    let failure = Failure {
        handler: Some(name.clone().into_owned()),
        ..Failure::of(error, attempts)
    };
    tracing::warn!(thread = %ctx.run.key, task = %ctx.id(), handler = %name, error = told(error), "a task failed, its handler takes over");
    if ctx.run.store.is_some() {
        let body = encode_record(&failure).map_err(|error| End::failed(NodeError::terminal(error), ctx))?;
        let record = TaskRecord {
            task: ctx.id(),
            kind: RecordKind::Failure,
            key: String::new(),
            body,
        };
        let mut records = vec![record];
        if attempts > 1 {
            records.push(forget(ctx.id()).map_err(|error| End::failed(NodeError::terminal(error), ctx))?);
        }
        ctx.commit(records).await.map_err(End::unsaved)?;
    }
    shared
        .tell(EventKind::Handed {
            node: ctx.node_name(),
            task: ctx.id(),
            handler: name.clone(),
            error: failure.message.clone(),
        })
        .await;
    Ok(failure)
}
