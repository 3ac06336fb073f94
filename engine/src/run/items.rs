//! What becomes of a fan-out's item that has failed for good, as its worker's policy says.

use super::{
    NodeTimeout,
    error::{NodePanic, RunError},
    event::EventKind,
    guard::guarded,
    plan::Seed,
    step::{End, Shared},
};
use crate::{
    graph::{ItemError, OnItemFailure, Output, Payload},
    node::NodeError,
    scrub::told,
    state::State,
};

/// A task's end, with what takes the place of a failure if something does.
pub(super) async fn settle<S: State>(shared: &Shared<S>, task: &Seed<Payload>, end: End<S>) -> End<S> {
    let (error, attempts) = match end {
        End::Failed {
            error,
            attempts,
            caught: None,
        } => (error, attempts),
        other => return other,
    };
    let policy = shared.parts.nodes.get(task.node).map(|spec| &spec.on_failure);
    let (Some(policy), Some((index, _))) = (policy, &task.send) else {
        return failed(error, attempts);
    };
    let topology = &shared.parts.topology;
    let failure = |error: &NodeError| ItemError {
        index: *index,
        node: topology.name(task.node).clone(),
        message: told(error),
        code: code(error),
        attempts,
    };
    let update = match policy {
        OnItemFailure::Fail => return failed(error, attempts),
        OnItemFailure::Skip => S::Update::default(),
        OnItemFailure::Collect(collect) => match guarded(|| collect(failure(&error))) {
            Ok(update) => update,
            Err(panic) => {
                let error = NodeError::terminal(panic);
                return failed(error, attempts);
            }
        },
    };
    tracing::warn!(thread = %shared.run.key, failure = %failure(&error), "an item of a fan-out failed, and the run goes on");
    if shared.sink.is_heard() {
        shared
            .tell(EventKind::Failed {
                node: topology.name(task.node).clone(),
                task: topology.task_id(task.node, Some(*index)),
                error: told(&error),
            })
            .await;
    }
    End::Output(Output::of(update))
}

fn failed<S: State>(error: NodeError, attempts: u32) -> End<S> {
    End::Failed {
        error,
        attempts,
        caught: None,
    }
}

fn code(error: &NodeError) -> &'static str {
    let source = error.source();
    if let Some(inside) = source.downcast_ref::<RunError>() {
        inside.code()
    } else if source.is::<NodeTimeout>() {
        "node::timeout"
    } else if source.is::<NodePanic>() {
        "node::panic"
    } else {
        "node::error"
    }
}
