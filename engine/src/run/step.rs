//! Runs the tasks of one step: attempts, panics as errors, cancellation.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    budget::Spend,
    cache,
    error::{NodePanic, RunError},
    event::{EventKind, Sink},
    frontier::StoredGoto,
    guard::guarded,
    layers,
    plan::Seed,
    retry,
    settle::settle,
    timeout::within,
    version::{Inherited, StoredRoute},
};
use crate::{
    ask::Question,
    checkpoint::CheckpointError,
    graph::{Leave, NodeSpec, Output, Parts, Payload},
    node::{
        Arrived, Calls, Caught, Context, Cut, Emitter, LazyContext, Living, NodeError, NodeErrorKind, RunContext,
        TaskContext, share,
    },
    state::State,
};

/// How a task ended.
pub(crate) enum End<S: State> {
    Output(Output<S>),
    Asked(Vec<Question>),
    Failed {
        error: NodeError,
        attempts: u32,
        /// The failure that was being handled, if it is a handler that failed.
        caught: Option<Arc<Caught>>,
    },
    /// A graph inside has come to a breakpoint.
    Paused,
    /// A graph inside has ended its step and stopped there.
    Drained,
    /// A graph inside has spent what was left of the budget.
    OverBudget(Box<RunError>),
    Cancelled,
    /// Cut off with its step, while the run itself goes on to say why.
    CutOff,
    TimeLimit,
    /// The store refused to keep what must be durable before the task goes on.
    Unsaved(Box<RunError>),
}

impl<S: State> End<S> {
    /// What could not be kept, as the error that ends the run.
    pub(crate) fn unsaved(error: NodeError) -> Self {
        let error = match error.into_source().downcast::<CheckpointError>() {
            Ok(error) => RunError::Checkpoint(*error),
            Err(source) => match source.downcast::<RunError>() {
                Ok(error) => return Self::Unsaved(error),
                Err(source) => RunError::Checkpoint(CheckpointError::Unavailable {
                    message: source.to_string(),
                    source: Some(source),
                }),
            },
        };
        Self::Unsaved(Box::new(error))
    }

    pub(crate) fn failed(error: NodeError, ctx: &TaskContext) -> Self {
        Self::Failed {
            error,
            attempts: ctx.attempt,
            caught: ctx.caught.clone(),
        }
    }
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
    /// The handler that gave it in the task's stead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handler: Option<String>,
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
            handler: None,
        }
    }
}

/// Everything that the tasks of a step share.
pub(crate) struct Shared<S: State> {
    pub(crate) parts: Arc<Parts<S>>,
    pub(crate) run: Arc<RunContext>,
    pub(crate) state: Arc<S>,
    pub(crate) sink: Sink<S>,
    pub(crate) emitter: Option<Emitter<S::Event>>,
    pub(crate) step: i64,
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    /// Who had arrived at the joins that have led to this step: each target with its sources.
    pub(crate) arrived: Option<Arrived>,
    /// The checkpoint that the step begins at, known before it is stored; nil without a store.
    pub(crate) begins_at: uuid::Uuid,
    /// What the step has of another version of the program, if anything.
    pub(crate) inherited: Option<Arc<Inherited>>,
    /// Cuts off what still runs of the step; only where the graph says that this may happen.
    pub(crate) cut: Option<CancellationToken>,
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
    /// Before the run's first step.
    pub(crate) fn of(parts: Arc<Parts<S>>, run: Arc<RunContext>, state: Arc<S>, sink: Sink<S>, step: i64) -> Self {
        Self {
            parts,
            run,
            state,
            emitter: sink.emitter(),
            sink,
            step,
            recorded_at: None,
            arrived: None,
            begins_at: uuid::Uuid::nil(),
            inherited: None,
            cut: None,
        }
    }

    /// Tells the reader, waiting for room; a run that is to stop does not wait for its reader.
    pub(crate) async fn tell(&self, kind: EventKind<S>) {
        tokio::select! {
            biased;
            () = tell(&self.sink, &self.run, kind) => {}
            () = cut_off(self.cut.as_ref()) => {}
        }
    }

    /// How a task ends that was stopped.
    pub(crate) fn stopped(&self) -> End<S> {
        if self.is_cut() && !self.run.is_cancelled() {
            End::CutOff
        } else {
            End::Cancelled
        }
    }

    fn is_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// How every task of the step ends that is about to begin, if the run is to stop.
    pub(crate) fn stop(&self) -> Option<End<S>> {
        if self.run.is_cancelled() {
            return Some(End::Cancelled);
        }
        self.run.is_timed_out().then_some(End::TimeLimit)
    }
}

impl<S: State> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            parts: Arc::clone(&self.parts),
            run: Arc::clone(&self.run),
            state: Arc::clone(&self.state),
            sink: self.sink.clone(),
            emitter: self.emitter.clone(),
            step: self.step,
            recorded_at: self.recorded_at,
            arrived: self.arrived.clone(),
            begins_at: self.begins_at,
            inherited: self.inherited.clone(),
            cut: self.cut.clone(),
        }
    }
}

/// Resolves when the step is cut off.
pub(crate) async fn cut_off(cut: Option<&CancellationToken>) {
    match cut {
        Some(cut) => cut.cancelled().await,
        None => std::future::pending().await,
    }
}

type TaskFuture<S> = Pin<Box<dyn Future<Output = End<S>> + Send>>;

/// Runs one task in the caller's own future: nothing is spawned.
pub(crate) async fn run_one<S: State>(shared: &Shared<S>, task: &Seed<Payload>, cut: Option<Arc<Cut>>) -> End<S> {
    if shared.is_cut() {
        return shared.stopped();
    }
    // What belongs to an earlier step is late from now on, whoever runs this one.
    shared.run.step.store(shared.step, Ordering::Release);
    let payload = task.send.as_ref().map(|(_, payload)| payload);
    let mut ctx = TaskContext {
        run: Arc::clone(&shared.run),
        node: task.node,
        send: task.send.as_ref().map(|(number, _)| *number),
        step: shared.step,
        attempt: 1,
        recorded_at: shared.recorded_at,
        inherited: shared.inherited.clone(),
        held: None,
        arrived: shared.arrived.clone(),
        begins_at: shared.begins_at,
        cut: cut.or_else(|| shared.cut.as_ref().map(|step| Arc::new(Cut::under(Some(step))))),
        life: None,
        caught: None,
        calls: None,
    };
    ctx.calls = Calls::of(&shared.run, || ctx.id());
    if let Some(attempt) = ctx.calls.as_ref().and_then(|calls| calls.attempt()) {
        ctx.attempt = attempt;
    }
    settle(shared, task, ctx, payload).await
}

/// Runs a node until an attempt succeeds or no other follows.
pub(super) async fn attempts<S: State>(shared: &Shared<S>, mut ctx: TaskContext, payload: Option<&Payload>) -> End<S> {
    let Some(spec) = shared.parts.nodes.get(ctx.node) else {
        return End::failed(NodeError::terminal("the task names no node of its graph"), &ctx);
    };
    if spec.policy.retries()
        && shared.run.replay.is_none()
        && let Some(end) = retry::pick_up(shared, &mut ctx).await
    {
        return end;
    }
    loop {
        if let Some(calls) = &ctx.calls {
            calls.begin(ctx.attempt);
        }
        let error = match cache::within(shared, spec, &ctx, payload).await {
            Ok(End::Output(mut output)) => {
                if let Some(calls) = ctx.calls {
                    if output.cached {
                        calls.not_entered();
                    }
                    output.calls = Some(calls);
                }
                return End::Output(output);
            }
            Ok(end) => return end,
            Err(error) => error,
        };
        let share = || share(&mut ctx.rng("retry"));
        // What says which errors are worth another attempt is the author's: a panic there is this task's failure.
        let delay = match guarded(|| spec.policy.delay_after(ctx.attempt, &error, share)) {
            Ok(delay) => delay,
            Err(panic) => return End::failed(NodeError::terminal(panic), &ctx),
        };
        // What failed in a replay would fail again.
        let Some(delay) = delay.filter(|_| shared.run.replay.is_none()) else {
            return End::failed(error, &ctx);
        };
        if let Some(end) = retry::later(shared, &ctx, &error, delay).await {
            return end;
        }
        ctx.attempt = ctx.attempt.saturating_add(1);
    }
}

/// One attempt: the task's end, or an error that another attempt may mend.
pub(super) async fn attempt<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
    payload: Option<&Payload>,
) -> Result<End<S>, NodeError> {
    // Only an attempt that may end before its node does is told from those that follow.
    let living = if spec.policy.is_limited() || spec.policy.retries() || ctx.cut.is_some() {
        Living::begin(shared.run.host_life())
    } else {
        Living(None)
    };
    let life = living.0.clone();
    let task = TaskContext {
        life: life.clone().or_else(|| shared.run.host_life()),
        ..ctx.clone()
    };
    // Inside the future, so that a panic before the node's first await is caught as well.
    let body = AssertUnwindSafe(async {
        let emitter = shared.emitter.clone();
        let ctx = Context { task, emitter };
        if shared.run.setting.layers.is_empty() {
            let running = (spec.call)(&shared.state, payload, LazyContext(&|| ctx.clone()));
            running.await
        } else {
            Box::pin(layers::call(shared, spec, payload, ctx)).await
        }
    });
    let limited = async {
        match &life {
            Some(life) if spec.policy.is_limited() => within(body.catch_unwind(), &spec.policy, life).await,
            _ => Ok(body.catch_unwind().await),
        }
    };
    let mut limited = std::pin::pin!(limited);
    // Most nodes end without waiting: only one that waits need look out for a stop.
    let result = match std::future::poll_fn(|cx| Poll::Ready(limited.as_mut().poll(cx))).await {
        Poll::Ready(result) => result,
        Poll::Pending => tokio::select! {
            biased;
            result = limited => result,
            () = ctx.stopped() => return Ok(shared.stopped()),
            () = shared.run.timed_out() => return Ok(End::TimeLimit),
        },
    };
    let result = match result {
        Ok(Ok(Ok(output))) => {
            living.let_go();
            Ok(output)
        }
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(panic)) => Err(NodeError::terminal(NodePanic {
            message: panic_message(panic.as_ref()),
        })),
        Err(timeout) => Err(NodeError::retryable(timeout)),
    };
    ended(shared, spec, ctx, result)
}

/// What an attempt has come to.
pub(super) fn ended<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    ctx: &TaskContext,
    result: Result<Output<S>, NodeError>,
) -> Result<End<S>, NodeError> {
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
        Err(_) if ctx.is_cancelled() => Ok(shared.stopped()),
        Err(error) => match error.kind() {
            NodeErrorKind::Asked => Err(NodeError::terminal(
                "a question of another run was passed on as this node's",
            )),
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
            NodeErrorKind::Leaves => {
                let mut output = Output::of(S::Update::default());
                output.leave = Some(Box::new(error.into_left()?));
                Ok(End::Output(output))
            }
            NodeErrorKind::TimeLimit if shared.run.is_timed_out() => Ok(End::TimeLimit),
            // A cancellation or time limit that is not this run's is that of another, whose end the node has passed on.
            NodeErrorKind::Cancelled
            | NodeErrorKind::TimeLimit
            | NodeErrorKind::Retryable
            | NodeErrorKind::Terminal => Err(error),
        },
    }
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
            let mut future: TaskFuture<S> = Box::pin(async move { run_one(&shared, &task, cut).await });
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
