//! The short way of a step. Most steps have one task whose node nothing stands around and that ends without waiting, and
//! most runs have nobody who listens: such steps follow one another within one poll, without a future of their own.
//!
//! What is not as plain as that takes the general way of the [driver](super::driver): from the beginning of the step, or
//! from where the node waits or has failed.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context as Poller, Poll, ready},
};

use futures_util::FutureExt;
use tokio::task::coop::poll_proceed;

use super::{
    barrier::Gave,
    behind::Durability,
    driver::{Driver, Ran},
    error::{NodePanic, RunError},
    guard::guarded,
    plan::Seed,
    recording::Recording,
    settle::close,
    step::{End, Shared, ended, panic_message},
};
use crate::{
    checkpoint::{CheckpointSource, RunStatus},
    graph::{Output, Payload, Running},
    node::{Context, LazyContext, NodeError, TaskContext},
    state::State,
};

/// How far steps have come by the short way.
pub(super) enum Way<S: State> {
    /// The next step takes the general way from its beginning, if there is one.
    General,
    /// A step has begun whose node waits or has failed.
    Begun(Begun<S>),
    /// A step has begun whose node has given its output, which is not merged yet.
    Gave(Running<S>),
    /// A step is merged, and to be saved.
    Merged,
    /// A step could not be merged.
    Failed(RunError),
    /// A step could not be saved.
    Unsaved(RunError),
}

/// A node of which the short way knows no more.
pub(super) enum Begun<S: State> {
    Waits(Running<S>),
    Ended(Result<Output<S>, NodeError>),
}

impl<S: State> Driver<S> {
    /// Whether nothing about this run needs more of a step than its node and the merge.
    pub(super) fn is_straight(&self) -> bool {
        let run = &self.shared.run;
        let written_at_once = |durability| durability == Durability::Sync;
        let watched = self.shared.sink.is_heard() || !run.setting.layers.is_empty() || run.setting.ways.is_some();
        let recorded = run.replay.is_some() || (run.recording != Recording::Off && run.store.is_some());
        let stopped = self.breakpoints.names().next().is_some() || self.budget.is_some();
        let raced = self.shared.parts.rules.cuts() || self.shared.parts.topology.races();
        let durability = run.store.as_ref().map(|handle| handle.durability);
        !(watched || recorded || stopped || raced || run.limit.is_some()) && durability.is_none_or(written_at_once)
    }

    /// Goes as far as the short way leads.
    pub(super) fn go_straight(&mut self, cx: &mut Poller<'_>) -> Poll<Way<S>> {
        loop {
            let [task] = &*self.tasks else {
                return Poll::Ready(Way::General);
            };
            let plain = self.shared.parts.nodes.get(task.node).is_some_and(|spec| spec.plain);
            if !plain || self.steps_left == 0 || self.has_records || self.shared.run.is_draining() {
                return Poll::Ready(Way::General);
            }
            // Nodes that never wait would not let others run.
            ready!(poll_proceed(cx)).made_progress();
            if self.shared.stop().is_some() {
                return Poll::Ready(Way::General);
            }
            self.count_step();
            self.beat();
            self.note_arrivals();
            let running = match self.poll_lone(cx) {
                Ok(running) => running,
                Err(begun) => return Poll::Ready(Way::Begun(begun)),
            };
            if let Some(way) = self.settle_lone(running) {
                return Poll::Ready(way);
            }
        }
    }

    /// Merges what the step's only node gave, and saves it if that is done at once. Says how it goes on, if not straight.
    pub(super) fn settle_lone(&mut self, mut running: Running<S>) -> Option<Way<S>> {
        let Some(output) = running.output().filter(|output| output.leave.is_none()) else {
            return Some(Way::Begun(Begun::Ended(running.take())));
        };
        if self.shared.run.journal.has_asked() {
            return Some(Way::Begun(Begun::Ended(running.take())));
        }
        self.beat();
        let spend = self.tasks.first().and_then(|task| self.spent_by(task));
        let spend = spend.unwrap_or(output.spend);
        let merged = self.merged(Gave::Lone(output));
        if let Err(error) = merged.and_then(|merged| merged.map_err(|unmerged| self.unmerged(&unmerged))) {
            return Some(Way::Failed(error));
        }
        self.book(spend);
        if self.shared.run.store.is_none() {
            self.forget_step();
        } else if !self.saves_at_once() {
            return Some(Way::Merged);
        } else if let Err(error) = self.save_step_at_once() {
            return Some(Way::Unsaved(error));
        }
        None
    }

    fn save_step_at_once(&mut self) -> Result<(), RunError> {
        let run = self.tasks.is_empty().then(|| self.mark(RunStatus::Done, None));
        self.has_records = false;
        self.save_at_once(CheckpointSource::Step, run, Vec::new())
    }

    /// Enters the step's only node and polls it once.
    fn poll_lone(&self, cx: &mut Poller<'_>) -> Result<Running<S>, Begun<S>> {
        let shared = &self.shared;
        let spec_of = |task: &Seed<Payload>| shared.parts.nodes.get(task.node);
        let (Some(task), Some(spec)) = (self.tasks.first(), self.tasks.first().and_then(spec_of)) else {
            return Err(Begun::Ended(Err(NodeError::terminal("the step has no task"))));
        };
        let payload = task.send.as_ref().map(|(_, payload)| payload);
        let mut entered = None;
        // The node's own code runs here, also before its first await.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let context = || Context {
                task: lone_context(shared, task),
                emitter: shared.emitter.clone(),
            };
            let running = entered.insert((spec.call)(&shared.state, payload, LazyContext(&context)));
            running.go_on(cx).map_ok(|_output| ())
        }));
        match (polled, entered) {
            (Ok(Poll::Ready(Ok(()))), Some(running)) => Ok(running),
            (Ok(Poll::Ready(Err(error))), _) => Err(Begun::Ended(Err(error))),
            (Ok(Poll::Pending), Some(running)) => Err(Begun::Waits(running)),
            (Ok(_), None) => Err(Begun::Ended(Err(NodeError::terminal("the node was lost")))),
            (Err(panic), entered) => {
                // What the node holds may panic once more as it goes; the first panic is what is told.
                let _told_already = guarded(|| drop(entered));
                Err(Begun::Ended(Err(NodeError::terminal(NodePanic {
                    message: panic_message(panic.as_ref()),
                }))))
            }
        }
    }

    /// Goes on with a node that waits or has failed, to the end of its task.
    pub(super) async fn finish_lone(&self, begun: Begun<S>) -> Ran<S> {
        let Some(task) = self.tasks.first() else {
            return Ran::Many(Vec::new());
        };
        let shared = &self.shared;
        let ctx = lone_context(shared, task);
        let result = match begun {
            Begun::Ended(result) => Ok(result),
            Begun::Waits(running) => wait(shared, &ctx, running).await,
        };
        let result = match (result, shared.parts.nodes.get(task.node)) {
            (Ok(result), Some(spec)) => ended(shared, spec, &ctx, result),
            (Ok(result), None) => result.map(End::Output),
            (Err(end), _) => Ok(end),
        };
        let end = result.unwrap_or_else(|error| End::failed(error, &ctx));
        let mut end = close(shared, task, end).await;
        self.bill(task, &mut end);
        self.beat();
        Ran::Lone(end)
    }
}

/// A plain task's context.
fn lone_context<S: State>(shared: &Shared<S>, task: &Seed<Payload>) -> TaskContext {
    TaskContext {
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
        cut: None,
        life: shared.run.host_life(),
        caught: None,
        calls: None,
    }
}

/// Waits for a node, until its run is to stop.
async fn wait<S: State>(
    shared: &Shared<S>,
    ctx: &TaskContext,
    running: Running<S>,
) -> Result<Result<Output<S>, NodeError>, End<S>> {
    let result = tokio::select! {
        biased;
        result = AssertUnwindSafe(running).catch_unwind() => result,
        () = ctx.stopped() => return Err(shared.stopped()),
        () = shared.run.timed_out() => return Err(End::TimeLimit),
    };
    Ok(result.unwrap_or_else(|panic| {
        Err(NodeError::terminal(NodePanic {
            message: panic_message(panic.as_ref()),
        }))
    }))
}
