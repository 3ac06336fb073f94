//! Spans of runs, steps and attempts.

use async_trait::async_trait;
use tracing::{Instrument, field::Empty, info_span};

use super::{Layer, Next, Ran, RunInfo, StepInfo, TaskInfo, Whole};
use crate::node::NodeError;

/// A layer that opens a [`tracing`] span for each run, step and attempt, one inside the other, with what they are called and
/// nothing of the state:
///
/// | span | fields |
/// |---|---|
/// | `stepgraph.run` | `graph`, `tenant`, `thread`, `run` |
/// | `stepgraph.step` | `graph`, `step`, `tasks` |
/// | `stepgraph.attempt` | `graph`, `node`, `task`, `step`, `attempt`; at its end `outcome`: `done`, `asked`, `failed` for good, `retryable`, `stopped` |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tracing;

#[async_trait]
impl Layer for Tracing {
    async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        let span = info_span!(
            "stepgraph.attempt",
            graph = %task.run.graph,
            node = %task.node,
            task = task.task,
            step = task.step,
            attempt = task.attempt,
            outcome = Empty,
        );
        let result = next.run().instrument(span.clone()).await;
        span.record("outcome", result.as_ref().map_or_else(NodeError::outcome, |_| "done"));
        result
    }

    async fn around_step(&self, step: &StepInfo, whole: Whole<'_>) {
        let span = info_span!(
            "stepgraph.step",
            graph = %step.run.graph,
            step = step.step,
            tasks = step.tasks,
        );
        whole.run().instrument(span).await;
    }

    async fn around_run(&self, run: &RunInfo, whole: Whole<'_>) {
        let span = info_span!(
            "stepgraph.run",
            graph = %run.graph,
            tenant = %run.thread.tenant,
            thread = %run.thread,
            run = %run.run,
        );
        whole.run().instrument(span).await;
    }
}
