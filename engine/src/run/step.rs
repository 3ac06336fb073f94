//! Runs the tasks of one step: attempts, timeouts, panics as errors, cancellation.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, task::Poll, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{
    budget::Spend,
    cache,
    error::{NodePanic, NodeTimeout, RunError},
    event::{EventKind, Sink},
    frontier::StoredGoto,
    items::settle,
    layers,
    plan::Seed,
    version::{Inherited, StoredRoute},
};
use crate::{
    ask::Question,
    graph::{Leave, NodeSpec, Output, Parts, Payload},
    node::{Arrived, Calls, Context, Cut, Emitter, NodeError, NodeErrorKind, RunContext, TaskContext},
    state::State,
};

/// How a task ended.
pub(crate) enum End<S: State> {
    Output(Output<S>),
    Asked(Vec<Question>),
    Failed {
        error: NodeError,
        attempts: u32,
    },
    /// A graph inside has come to a breakpoint.
    Paused,
    /// A graph inside has ended its step and stopped there.
    Drained,
    /// A graph inside has spent what was left of the budget.
    OverBudget(Box<RunError>),
    Cancelled,
    TimeLimit,
}

/// A task's output as a record.
#[derive(Serialize, Deserialize)]
pub struct StoredOutput<U> {
    pub(crate) update: U,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<StoredRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<StoredRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) goto: Vec<StoredGoto>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leave: Option<Box<Leave>>,
    #[serde(default, skip_serializing_if = "Spend::is_nothing")]
    pub(crate) spend: Spend,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cancelled: Option<DateTime<Utc>>,
    /// Version of the update's form, if it is another than that of the state it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
}

impl<U> StoredOutput<U> {
    pub(crate) const fn of(update: U) -> Self {
        Self {
            update,
            route: None,
            also: Vec::new(),
            goto: Vec::new(),
            leave: None,
            spend: Spend::NOTHING,
            cancelled: None,
            version: None,
        }
    }
}

/// Everything that the tasks of a step share.
pub(crate) struct Shared<S: State> {
    pub(crate) parts: Arc<Parts<S>>,
    pub(crate) run: Arc<RunContext>,
    pub(crate) state: Arc<S>,
    pub(crate) sink: Arc<Sink<S>>,
    pub(crate) emitter: Option<Emitter<S::Event>>,
    pub(crate) step: i64,
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    /// Who had arrived at the joins that have led to this step: each target with its sources.
    pub(crate) arrived: Option<Arrived>,
    /// The checkpoint that the step begins at, known before it is stored; nil without a store.
    pub(crate) begins_at: uuid::Uuid,
    /// What the step has of another version of the program, if anything.
    pub(crate) inherited: Option<Arc<Inherited>>,
}

/// Tells the reader, waiting for room; a run that is to stop does not wait for its reader.
pub(crate) async fn tell<S: State>(sink: &Sink<S>, run: &RunContext, kind: EventKind<S>) {
    tokio::select! {
        biased;
        () = sink.send(kind) => {}
        () = run.cancelled() => {}
        () = run.timed_out() => {}
    }
}

impl<S: State> Shared<S> {
    /// Tells the reader, waiting for room; a run that is to stop does not wait for its reader.
    pub(crate) async fn tell(&self, kind: EventKind<S>) {
        tell(&self.sink, &self.run, kind).await;
    }

    /// How every task of the step ends that is about to begin, if the run is to stop.
    pub(crate) fn stop(&self) -> Option<End<S>> {
        if self.run.is_cancelled() {
            return Some(End::Cancelled);
        }
        let timed_out = self
            .run
            .deadline
            .is_some_and(|deadline| deadline <= tokio::time::Instant::now());
        timed_out.then_some(End::TimeLimit)
    }
}

impl<S: State> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            parts: Arc::clone(&self.parts),
            run: Arc::clone(&self.run),
            state: Arc::clone(&self.state),
            sink: Arc::clone(&self.sink),
            emitter: self.emitter.clone(),
            step: self.step,
            recorded_at: self.recorded_at,
            arrived: self.arrived.clone(),
            begins_at: self.begins_at,
            inherited: self.inherited.clone(),
        }
    }
}

type TaskFuture<S> = Pin<Box<dyn Future<Output = End<S>> + Send>>;

/// Runs one task in the caller's own future: nothing is spawned.
pub(crate) async fn run_one<S: State>(shared: &Shared<S>, task: &Seed<Payload>, cut: Option<Arc<Cut>>) -> End<S> {
    let send = task.send.as_ref().map(|(number, _)| *number);
    let payload = task.send.as_ref().map(|(_, payload)| payload);
    let mut ctx = TaskContext {
        run: Arc::clone(&shared.run),
        node: task.node,
        send,
        step: shared.step,
        attempt: 1,
        recorded_at: shared.recorded_at,
        inherited: shared.inherited.clone(),
        held: None,
        arrived: shared.arrived.clone(),
        cut,
        begins_at: shared.begins_at,
        calls: None,
    };
    ctx.calls = Calls::of(&shared.run, || ctx.id());
    if let Some(attempt) = ctx.calls.as_ref().and_then(|calls| calls.attempt()) {
        ctx.attempt = attempt;
    }
    let Some(spec) = shared.parts.nodes.get(task.node) else {
        return End::Failed {
            error: NodeError::terminal("the task names no node of its graph"),
            attempts: 0,
        };
    };
    loop {
        if let Some(calls) = &ctx.calls {
            calls.begin(ctx.attempt);
        }
        let error = match cache::within(shared, spec, &ctx, payload).await {
            Ok(End::Output(output)) => {
                if output.cached
                    && let Some(calls) = &ctx.calls
                {
                    calls.not_entered();
                }
                return End::Output(Output {
                    calls: ctx.calls,
                    ..output
                });
            }
            Ok(end) => return end,
            Err(error) => error,
        };
        // What failed in a replay would fail again.
        let delay = if error.is_retryable() && shared.run.replay.is_none() {
            spec.policy.retry.delay_after(ctx.attempt, &mut ctx.rng("retry"))
        } else {
            None
        };
        let Some(delay) = delay else {
            return End::Failed {
                error,
                attempts: ctx.attempt,
            };
        };
        retry_later(shared, &ctx, &error, delay).await;
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = ctx.stopped() => return End::Cancelled,
            () = shared.run.timed_out() => return End::TimeLimit,
        }
        ctx.attempt += 1;
    }
}

/// One attempt: the task's end, or an error that another attempt may mend.
pub(super) async fn attempt<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
    payload: Option<&Payload>,
) -> Result<End<S>, NodeError> {
    // Inside the future, so that a panic before the node's first await is caught as well.
    let body = async {
        let ctx = Context {
            task: ctx.clone(),
            emitter: shared.emitter.clone(),
        };
        if shared.run.layers.is_empty() {
            (spec.call)(&shared.state, payload, ctx).await
        } else {
            Box::pin(layers::call(shared, spec, payload, ctx)).await
        }
    };
    let mut body = std::pin::pin!(limited(AssertUnwindSafe(body).catch_unwind(), spec.policy.timeout));
    // Most nodes end without waiting: only one that waits need look out for a stop.
    let result = match std::future::poll_fn(|cx| Poll::Ready(body.as_mut().poll(cx))).await {
        Poll::Ready(result) => result,
        Poll::Pending => tokio::select! {
            biased;
            result = body => result,
            () = ctx.stopped() => return Ok(End::Cancelled),
            () = shared.run.timed_out() => return Ok(End::TimeLimit),
        },
    };
    let journal = &shared.run.journal;
    if journal.has_asked() {
        let asked = journal.take_asked(&ctx.id());
        if !asked.is_empty() {
            return Ok(End::Asked(asked));
        }
    }
    match result {
        Ok(output) => Ok(End::Output(output)),
        // A node that notices the cancellation has no other way to leave.
        Err(_) if ctx.is_cancelled() => Ok(End::Cancelled),
        Err(error) => match error.kind() {
            NodeErrorKind::Asked => Err(NodeError::terminal(
                "a question of another run was passed on as this node's",
            )),
            NodeErrorKind::Cancelled => Ok(End::Cancelled),
            NodeErrorKind::Paused => Ok(End::Paused),
            NodeErrorKind::Drained => Ok(End::Drained),
            NodeErrorKind::OverBudget => error
                .into_source()
                .downcast()
                .map(End::OverBudget)
                .map_err(NodeError::terminal),
            NodeErrorKind::Left => match &spec.adopt {
                Some(adopt) => adopt(error.into_left()?).map(End::Output),
                None => Err(error),
            },
            NodeErrorKind::Leaves => Ok(End::Output(Output {
                leave: Some(Box::new(error.into_left()?)),
                ..Output::of(S::Update::default())
            })),
            NodeErrorKind::TimeLimit => Ok(End::TimeLimit),
            NodeErrorKind::Retryable | NodeErrorKind::Terminal => Err(error),
        },
    }
}

async fn retry_later<S: State>(shared: &Shared<S>, ctx: &TaskContext, error: &NodeError, delay: Duration) {
    let node = ctx.node_name();
    tracing::warn!(thread = %ctx.run.key, node = %node, attempt = ctx.attempt, %error, ?delay, "a task failed and will be tried again");
    shared
        .tell(EventKind::Retry {
            node,
            attempt: ctx.attempt,
            error: error.to_string(),
            delay,
        })
        .await;
}

type Caught<S> = Result<Result<Output<S>, NodeError>, Box<dyn Any + Send>>;

async fn limited<S: State>(
    attempt: impl Future<Output = Caught<S>>,
    limit: Option<Duration>,
) -> Result<Output<S>, NodeError> {
    let caught = match limit {
        None => attempt.await,
        Some(limit) => match tokio::time::timeout(limit, attempt).await {
            Ok(caught) => caught,
            Err(_) => return Err(NodeError::retryable(NodeTimeout { limit })),
        },
    };
    caught.unwrap_or_else(|panic| {
        Err(NodeError::terminal(NodePanic {
            message: panic_message(panic.as_ref()),
        }))
    })
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The tasks of a step that run side by side. Each is polled once where it is made; only what then waits is spawned.
pub(crate) struct Crowd<S: State> {
    waiting: JoinSet<(usize, End<S>)>,
}

impl<S: State> Crowd<S> {
    /// Starts the tasks; those that end without waiting are returned at once.
    pub(crate) async fn start(
        shared: &Shared<S>,
        tasks: impl Iterator<Item = (usize, &Seed<Payload>, Option<Arc<Cut>>)>,
    ) -> (Self, Vec<(usize, End<S>)>) {
        let mut crowd = Self {
            waiting: JoinSet::new(),
        };
        let mut ended = Vec::new();
        for (at, task, cut) in tasks {
            let (shared, task) = (shared.clone(), task.clone());
            let mut future: TaskFuture<S> = Box::pin(async move {
                let end = run_one(&shared, &task, cut).await;
                settle(&shared, &task, end).await
            });
            match std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
                Poll::Ready(end) => ended.push((at, end)),
                Poll::Pending => {
                    // What waits goes on in the span of its step.
                    crowd.waiting.spawn(async move { (at, future.await) }.in_current_span());
                }
            }
        }
        (crowd, ended)
    }

    /// The next tasks that end: at least one, and whichever else has ended meanwhile. Empty when none is left.
    pub(crate) async fn next(&mut self) -> Result<Vec<(usize, End<S>)>, String> {
        let Some(first) = self.waiting.join_next().await else {
            return Ok(Vec::new());
        };
        let mut ended = vec![first.map_err(|error| error.to_string())?];
        while let Some(next) = self.waiting.try_join_next() {
            ended.push(next.map_err(|error| error.to_string())?);
        }
        Ok(ended)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
