//! The loop of a run: a step's tasks, then its [barrier](super::barrier), until nothing is left or something stops it.

use std::{borrow::Cow, future::poll_fn, ops::ControlFlow, sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{
    Outcome, StalledJoin,
    barrier::{Outputs, Sizes},
    behind::Writes,
    breakpoint::{Breakpoints, Stop},
    budget::{Account, Budget},
    busy::Hold,
    error::{NodePanic, RunError},
    event::{EventKind, StartedTask},
    layers, owned,
    plan::{Departure, Seed, Tasks, Waiting},
    race::{Watch, wait_for},
    recording::Origin,
    saver::Late,
    step::{Crowd, End, Shared, run_one},
    straight::{Begun, Way},
    version::Inherited,
};
use crate::{
    ask::Question,
    checkpoint::{CheckpointSource, Commit, RunStatus, Seq, TaskRecord},
    dynamic::Compat,
    graph::{Leave, Payload},
    node::NodeError,
    scrub::told,
    state::{Changes, State, Update},
};

/// A run under way.
pub(crate) struct Driver<S: State> {
    pub(crate) shared: Shared<S>,
    pub(crate) tasks: Tasks<Payload>,
    pub(crate) waiting: Waiting,
    /// What the run has spent so far.
    pub(crate) account: Account,
    /// What it may spend, as far as it was raised.
    pub(crate) budget: Option<Budget>,
    pub(crate) steps_left: u32,
    pub(crate) step_limit: u32,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) sizes: Sizes,
    pub(crate) changes: Changes,
    /// Where a step's only task leads, kept for its memory.
    pub(crate) departure: Departure<Payload>,
    /// When the step ended, where joins were decided by it.
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// What the next checkpoint's commit says of the step before it.
    pub(crate) kept: Vec<TaskRecord>,
    /// What the next checkpoint is made of, where it is no step's end and the run is recorded.
    pub(crate) origin: Option<Origin>,
    /// The checkpoint that the next one grows from, if not the head.
    pub(crate) parent: Option<Seq>,
    pub(crate) late: Late,
    /// Cuts off what is being written when the run is dropped.
    pub(crate) _writes: Option<Writes>,
    /// Outputs that earlier runs of this step have left behind are looked up only when there are any.
    pub(crate) has_records: bool,
    pub(crate) breakpoints: Breakpoints,
    /// Whether its plain steps may go the [short way](super::straight).
    pub(crate) straight: bool,
    /// Whether a breakpoint may stop it before its next step: not before the first of a run without input.
    pub(crate) may_pause: bool,
    pub(crate) _hold: Option<Hold>,
}

/// How a step ended.
pub(super) enum StepEnd {
    Merged,
    Asked(Vec<Question>),
    Paused,
    Drained,
    Cancelled,
    Left(Box<Leave>),
}

impl StepEnd {
    /// What the run has come to, if it ends with the step.
    fn into_end<S: State>(self, driver: &Driver<S>) -> Option<RunEnd<S>> {
        Some(RunEnd::Outcome(match self {
            Self::Merged => return None,
            Self::Left(leave) => {
                let graph = driver.shared.parts.topology.graph.clone();
                return Some(RunEnd::Left(Left { leave, graph }));
            }
            Self::Asked(questions) => Outcome::Asked(questions),
            Self::Paused => Outcome::Breakpoint(Stop::Inside),
            Self::Drained => Outcome::Drained,
            Self::Cancelled => Outcome::Cancelled,
        }))
    }
}

/// How the tasks of a step have ended.
pub(super) enum Ran<S: State> {
    /// The only task of it: no list need be made.
    Lone(End<S>),
    Many(Vec<End<S>>),
}

/// What a run has come to.
pub(crate) enum RunEnd<S> {
    Outcome(Outcome<S>),
    /// A node has ended the graph in favour of the one around it.
    Left(Left),
}

impl<S> RunEnd<S> {
    /// Of a run that no graph stands around.
    pub(super) fn into_outcome(self) -> Result<Outcome<S>, RunError> {
        match self {
            Self::Outcome(outcome) => Ok(outcome),
            Self::Left(left) => Err(RunError::NoParent {
                graph: left.graph.into_owned(),
            }),
        }
    }
}

/// What was left to the graph around, and by which graph.
pub(crate) struct Left {
    pub(crate) leave: Box<Leave>,
    pub(crate) graph: Cow<'static, str>,
}

impl<S: State> Driver<S> {
    /// Runs to an end.
    pub(crate) async fn drive(self: Box<Self>) -> Result<RunEnd<S>, RunError> {
        self.drive_on(None).await
    }

    /// The same from where a step has come, if one has begun.
    pub(super) async fn drive_on(mut self: Box<Self>, mut way: Option<Way<S>>) -> Result<RunEnd<S>, RunError> {
        self.straight = self.is_straight();
        loop {
            let begun = match self.by_short_way(way.take()).await? {
                ControlFlow::Break(()) => continue,
                ControlFlow::Continue(begun) => begun,
            };
            if self.tasks.is_empty() && !self.ends_too_late() {
                return Ok(RunEnd::Outcome(self.end()));
            }
            // In a box: runs that never come here have no room for it.
            if let Some(end) = Box::pin(self.by_general_way(begun)).await? {
                return Ok(end);
            }
        }
    }

    /// One step by the general way, or the rest of one that the short way has begun. Gives what the run has come to, if it
    /// ends with the step or before it.
    async fn by_general_way(&mut self, begun: Option<Begun<S>>) -> Result<Option<RunEnd<S>>, RunError> {
        if let Some(begun) = begun {
            let ran = self.finish_lone(begun).await;
            return Ok(self.conclude(ran).await?.into_end(self));
        }
        if self.is_start() {
            self.start().await?;
            return Ok(None);
        }
        if let Some(end) = self.check_budget().await? {
            return Ok(Some(end));
        }
        let draining = self.shared.run.is_draining();
        if self.steps_left == 0 && !draining {
            let error = RunError::StepLimit {
                thread: Box::new(self.shared.run.key.clone()),
                limit: self.step_limit,
            };
            return Err(self.give_up(RunStatus::Stopped, Vec::new(), error).await);
        }
        let topology = std::sync::Arc::clone(&self.shared.parts.topology);
        let pausing =
            |of: &[Seed<Payload>]| -> Vec<_> { of.iter().map(|task| topology.name(task.node).clone()).collect() };
        if self.may_pause && self.breakpoints.before.matches(&topology, &self.tasks) {
            let nodes = pausing(&self.tasks);
            return self.pause(Stop::Before(nodes)).await.map(Some);
        }
        if draining {
            return self.drained().await.map(Some);
        }
        let ran = self.breakpoints.after.matches(&topology, &self.tasks);
        let ran = ran.then(|| pausing(&self.tasks));
        let end = if self.shared.run.setting.layers.is_empty() {
            self.superstep().await?
        } else {
            layers::superstep(self).await?
        };
        match (end.into_end(self), ran) {
            (None, Some(nodes)) => self.pause(Stop::After(nodes)).await.map(Some),
            (end, _) => Ok(end),
        }
    }

    /// Goes the short way as far as it leads: `Break` after a step that was saved, otherwise with the node that it has begun.
    async fn by_short_way(&mut self, way: Option<Way<S>>) -> Result<ControlFlow<(), Option<Begun<S>>>, RunError> {
        let mut way = match way {
            Some(way) => way,
            None if self.straight => poll_fn(|cx| self.go_straight(cx)).await,
            None => return Ok(ControlFlow::Continue(None)),
        };
        if let Way::Gave(running) = way {
            match self.settle_lone(running) {
                Some(on) => way = on,
                None => return Ok(ControlFlow::Break(())),
            }
        }
        match way {
            Way::General | Way::Gave(_) => Ok(ControlFlow::Continue(None)),
            Way::Begun(begun) => Ok(ControlFlow::Continue(Some(begun))),
            Way::Merged => {
                let run = self.tasks.is_empty().then(|| self.mark(RunStatus::Done, None));
                self.save(CheckpointSource::Step, run, Vec::new()).await?;
                Ok(ControlFlow::Break(()))
            }
            Way::Unsaved(error) => Err(error),
            Way::Failed(error) => Err(Box::pin(self.give_up(RunStatus::Failed, Vec::new(), error)).await),
        }
    }

    /// Ends the run at a breakpoint.
    async fn pause(&mut self, stop: Stop) -> Result<RunEnd<S>, RunError> {
        if !self.tasks.is_empty() {
            self.commit(Commit {
                run: Some(self.mark(RunStatus::Stopped, None)),
                ..Commit::default()
            })
            .await?;
        }
        self.shared.tell(EventKind::Paused { at: stop.clone() }).await;
        Ok(RunEnd::Outcome(Outcome::Breakpoint(stop)))
    }

    /// What a run has come to that has no tasks left.
    pub(crate) fn end(self: Box<Self>) -> Outcome<S> {
        let compat = self.shared.parts.compat;
        let topology = &self.shared.parts.topology;
        let names = |nodes: Vec<usize>| {
            nodes
                .into_iter()
                .map(|node| topology.name(node).clone().into_owned())
                .collect()
        };
        let stalled = self.waiting.stalled(topology).into_iter();
        let waiting: Vec<_> = stalled
            .map(|(to, missing)| StalledJoin {
                to: names(to),
                missing: names(missing),
            })
            .collect();
        self.bill_outer();
        let Self { shared, .. } = *self;
        let Shared { run, state, .. } = shared;
        drop(run);
        let state = owned(state);
        if waiting.is_empty() || compat == Compat::Recorded {
            Outcome::Done(state)
        } else {
            Outcome::Stalled { state, waiting }
        }
    }

    /// A step begins.
    pub(super) fn count_step(&mut self) {
        self.may_pause = true;
        self.steps_left -= 1;
        self.shared.run.meter.show_steps_left(self.steps_left);
        self.shared.step += 1;
        self.shared.run.step.store(self.shared.step, Ordering::Release);
    }

    pub(super) async fn superstep(&mut self) -> Result<StepEnd, RunError> {
        self.count_step();
        let run = &self.shared.run;
        let cut = || {
            run.cancel
                .as_ref()
                .map(CancellationToken::child_token)
                .unwrap_or_default()
        };
        self.shared.cut = self.shared.parts.rules.cuts().then(cut);
        self.beat();
        if self.shared.sink.is_heard() {
            self.shared
                .tell(EventKind::Step {
                    step: self.shared.step,
                    tasks: self.started()?,
                })
                .await;
        }
        // Tasks that never wait would not notice it themselves, nor let others run.
        tokio::task::coop::consume_budget().await;
        if let Some(end) = self.shared.stop() {
            return self.suspend(Vec::new(), vec![(0, end)]).await;
        }
        self.note_arrivals();
        let watch = self.watch();
        let ran = self.run_in_time(watch).await?;
        self.conclude(ran).await
    }

    /// What the ends of a step's tasks come to.
    async fn conclude(&mut self, ran: Ran<S>) -> Result<StepEnd, RunError> {
        let ends = match ran {
            Ran::Lone(End::Output(output)) if output.leave.is_none() => {
                self.barrier(Outputs::Lone(output)).await?;
                return Ok(StepEnd::Merged);
            }
            Ran::Lone(end) => vec![end],
            Ran::Many(ends) => ends,
        };
        self.catch_up().await?;
        let mut outputs = Vec::with_capacity(ends.len());
        let mut others = Vec::new();
        for (at, end) in ends.into_iter().enumerate() {
            match end {
                End::Output(output) => outputs.push((at, output)),
                other => others.push((at, other)),
            }
        }
        if let Some((_, output)) = outputs.iter_mut().find(|(_, output)| output.leave.is_some())
            && let Some(leave) = output.leave.clone()
        {
            return self.leave(&outputs, leave).await;
        }
        if others.is_empty() {
            let outputs = outputs.into_iter().map(|(_, output)| output).collect();
            self.barrier(Outputs::Crowd(outputs)).await?;
            return Ok(StepEnd::Merged);
        }
        self.suspend(outputs, others).await
    }

    /// Runs the tasks of a step. What still runs when the step has taken as long as it may is cut off; what it has come to
    /// is waited for, so that no result is lost.
    async fn run_in_time(&mut self, watch: Option<Watch>) -> Result<Ran<S>, RunError> {
        let (limit, cut) = (self.shared.parts.rules.step_timeout, self.shared.cut.clone());
        let running = self.run_tasks(watch);
        tokio::pin!(running);
        if let (Some(limit), Some(cut)) = (limit, cut) {
            tokio::select! {
                biased;
                ends = &mut running => return ends,
                () = tokio::time::sleep(limit) => cut.cancel(),
            }
        }
        running.await
    }

    async fn run_tasks(&mut self, watch: Option<Watch>) -> Result<Ran<S>, RunError> {
        match &*self.tasks {
            [task] if !self.has_records && watch.is_none() => {
                let mut end = run_one(&self.shared, task, None).await;
                self.bill(task, &mut end);
                self.beat();
                if self.shared.sink.is_heard() {
                    self.tell_end(0, &end).await;
                }
                Ok(Ran::Lone(end))
            }
            _ => self.run_crowd(watch).await.map(Ran::Many),
        }
    }

    /// These tasks are next, and this waits.
    pub(super) fn stand_at(&mut self, (tasks, waiting): (Vec<Seed<Payload>>, Waiting)) {
        (self.tasks, self.waiting) = (tasks.into(), waiting);
    }

    /// What happens here is a sign of life of the node that hosts this graph.
    pub(super) fn beat(&self) {
        if let Some(host) = &self.shared.run.outer {
            host.beat();
        }
    }

    /// The tasks of a step as its first event names them.
    fn started(&self) -> Result<Vec<StartedTask>, RunError> {
        let parts = &self.shared.parts;
        let with_payload = self.shared.sink.hears_payloads();
        let tasks = self.tasks.iter().map(|task| {
            let payload = match &task.send {
                Some((_, payload)) if with_payload => {
                    let codec = parts.nodes.get(task.node).and_then(|spec| spec.payload.as_ref());
                    codec.map(|codec| (codec.show)(payload)).transpose()?
                }
                _ => None,
            };
            Ok(StartedTask {
                node: parts.topology.name(task.node).clone(),
                task: self.task_id(task),
                payload,
            })
        });
        tasks.collect()
    }

    /// Runs the tasks side by side. With a store, each result is durable before the next is waited for, and with it whom the
    /// joins cancel because of it.
    async fn run_crowd(&mut self, mut watch: Option<Watch>) -> Result<Vec<End<S>>, RunError> {
        let mut ends: Vec<Option<End<S>>> = Vec::new();
        for task in self.tasks.iter() {
            ends.push(if self.has_records { self.recorded(task)? } else { None });
        }
        let mut fresh = self.cancel_others(watch.as_mut(), &mut ends);
        self.keep_and_tell(watch.as_ref(), &ends, &fresh, !fresh.is_empty())
            .await?;
        let open = self
            .tasks
            .iter()
            .enumerate()
            .filter(|(at, _)| ends.get(*at).is_some_and(Option::is_none))
            .map(|(at, task)| (at, task, watch.as_ref().and_then(|watch| watch.cut(at))));
        let (mut crowd, mut ended) = Crowd::start(&self.shared, open).await;
        loop {
            fresh.clear();
            for (at, mut end) in ended {
                if let Some(task) = self.tasks.get(at) {
                    self.bill(task, &mut end);
                }
                // What a cancelled task still comes to counts no more.
                if let Some(slot @ None) = ends.get_mut(at) {
                    *slot = Some(end);
                    fresh.push(at);
                }
            }
            let cancelled = self.cancel_others(watch.as_mut(), &mut ends);
            let keep = !crowd.is_empty() || !cancelled.is_empty();
            fresh.extend(cancelled);
            self.keep_and_tell(watch.as_ref(), &ends, &fresh, keep).await?;
            if crowd.is_empty() {
                break;
            }
            let next = wait_for(&mut crowd, watch.as_mut(), &self.tasks, &ends).await;
            ended = next.map_err(|message| self.panicked("a task", None, NodePanic { message }))?;
        }
        let lost = || End::Failed {
            error: NodeError::retryable("the task ended without a result"),
            attempts: 1,
            caught: None,
        };
        Ok(ends.into_iter().map(|end| end.unwrap_or_else(lost)).collect())
    }

    /// Tells how a task has ended, as it ends.
    pub(super) async fn tell_end(&self, at: usize, end: &End<S>) {
        self.beat();
        let Some(task) = self.tasks.get(at) else { return };
        if !self.shared.sink.is_heard() {
            return;
        }
        let topology = &self.shared.parts.topology;
        let node = topology.name(task.node).clone();
        match end {
            End::Output(output) if output.cancelled.is_some() => {
                let task = self.task_id(task);
                self.shared.tell(EventKind::Cancelled { node, task }).await;
            }
            // What it gives is another graph's; the recorded engine tells nothing of it here.
            End::Output(output) if output.leave.is_some() && self.shared.parts.compat == Compat::Recorded => {}
            End::Output(output) => {
                let node = output.by.map_or(node, |by| topology.name(by).clone());
                let (task, mut update, cached) = (self.task_id(task), output.update.clone(), output.cached);
                update.hide(S::fields(&self.shared.parts.shape));
                let told = EventKind::Update {
                    node,
                    task,
                    update,
                    cached,
                };
                self.shared.tell(told).await;
            }
            End::Failed { error, .. } => {
                let (task, error) = (self.task_id(task), told(error));
                self.shared.tell(EventKind::Failed { node, task, error }).await;
            }
            // Questions are told once they are kept.
            End::Asked(_)
            | End::Paused
            | End::Drained
            | End::OverBudget(_)
            | End::Cancelled
            | End::CutOff
            | End::TimeLimit
            | End::Unsaved(_) => {}
        }
    }

    pub(super) fn task_id(&self, task: &Seed<Payload>) -> String {
        let send = task.send.as_ref().map(|(number, _)| *number);
        Inherited::task_id(
            self.shared.inherited.as_deref(),
            &self.shared.parts.topology,
            task.node,
            send,
        )
    }
}
