//! The shortest way of a run: new input on a thread that is not kept, or that its store, which never waits, does not have
//! yet; nobody listens, nothing is asked for but a limit of steps, and each step has one plain node. Such a run needs no
//! [driver](super::driver) and nothing that its tasks share: it goes on in the block of its own future.
//!
//! What is not as plain as that goes on with a driver that is made of it: from the beginning of a step, from a node that
//! waits, has failed or was given a context, or from what a node gave.

use std::{
    any::Any,
    cell::{Cell, OnceCell},
    future::Future,
    mem,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll, ready},
};

use chrono::{DateTime, Utc};
use tokio::task::coop::poll_proceed;
use uuid::Uuid;

use super::{
    Beginning, Options, Outcome, Run, STEP_LIMIT_DEFAULT,
    barrier::Sizes,
    behind::{Durability, StoreHandle},
    busy::First,
    driver::Driver,
    error::{NodePanic, RunError},
    event::Sink,
    frontier::Frontier,
    guard::{Doing, guarded},
    open::{context_of, driver_in},
    owned,
    plan::Tasks,
    quick::started,
    recording::Recording,
    saver::{checkpoint_id, stored_state, to_microseconds},
    step::panic_message,
    straight::{Begun, Way},
};
use crate::{
    checkpoint::{CheckpointSource, Epoch, Line, NewCheckpoint, RunMark, RunStatus, Seq},
    graph::{Graph, Payload, Running},
    id::{RunId, ThreadKey},
    node::{Context, LazyContext, NodeError, RunContext, TaskContext},
    state::{Changes, State},
};

type Ended<S> = Result<Outcome<S>, RunError>;

/// A run that begins by the shortest way. It goes on in this block of memory as long as it can, and nothing of it is moved.
pub(super) struct Going<S: State> {
    /// Taken as it begins.
    input: Option<S::Input>,
    /// There once it has begun, until it ends or goes on by another way.
    state: Option<Arc<S>>,
    sprint: Sprint<S>,
    /// The other way, in a box of its own, as everything that is large or rare.
    long: Option<Pin<Box<dyn Future<Output = Ended<S>> + Send>>>,
}

/// A run that needs no driver yet, beside its state.
struct Sprint<S: State> {
    graph: Graph<S>,
    key: ThreadKey,
    /// What the step has changed so far.
    changes: Changes,
    /// Number of the newest step that has begun.
    step: i64,
    /// The only task of the step under way, or of the next.
    node: usize,
    steps_left: u32,
    step_limit: u32,
    /// Made once a node asks for it; the run then goes on with a driver.
    context: OnceCell<Arc<RunContext>>,
    kept: Option<Kept>,
}

/// Where the run is kept.
struct Kept {
    line: Arc<dyn Line>,
    epoch: Epoch,
    head: Option<Seq>,
    run: RunId,
    /// How many checkpoints it has named.
    saves: u32,
    sizes: Sizes,
    /// Time and name of the newest checkpoint; the time of the claim before there is one.
    newest: (DateTime<Utc>, Uuid),
    turn: First,
}

/// Why it does not go on by itself.
enum Stop<S: State> {
    Done,
    /// It goes on with a driver, from here.
    Goes(Way<S>),
    /// What follows from the step that was merged is more than one task.
    Many(Tasks<Payload>),
    /// A panic of what the user has written beside nodes.
    Panicked(Doing, NodePanic),
}

/// What it is at, for what a panic means.
#[derive(Clone, Copy)]
enum At {
    Node,
    Merging,
    LeadingOn,
    /// Nothing of the graph's: a panic is not the run's to tell.
    Between,
}

impl<S: State> Going<S> {
    /// The node that a run begins with, if it may begin by the shortest way, as far as this can be seen before it begins.
    #[inline]
    pub(super) fn first(run: &Run<S>) -> Option<usize> {
        let graph = &run.graph;
        let unwatched = graph.setting.layers.is_empty() && graph.setting.ways.is_none();
        let waits = graph.store.as_ref().is_some_and(|store| store.at_once().is_none());
        let plain = run.options.is_none() && unwatched && !waits && graph.recording == Recording::Off;
        graph.parts.first.filter(|_| plain)
    }

    /// A run that begins so, with this input.
    #[inline]
    pub(super) fn of(graph: Graph<S>, key: ThreadKey, input: S::Input, first: usize, step_limit: Option<u32>) -> Self {
        let step_limit = step_limit.unwrap_or(STEP_LIMIT_DEFAULT);
        Self {
            input: Some(input),
            state: None,
            sprint: Sprint {
                graph,
                key,
                changes: Changes::default(),
                step: 0,
                node: first,
                steps_left: step_limit,
                step_limit,
                context: OnceCell::new(),
                kept: None,
            },
            long: None,
        }
    }

    #[inline]
    fn go_on(&mut self, cx: &mut Poller<'_>) -> Poll<Ended<S>> {
        if let Some(input) = self.input.take() {
            self.begin(input)?;
        }
        let Self {
            state, sprint, long, ..
        } = self;
        let Some(under_way) = state else {
            // One that is polled after its end waits for ever.
            return long.as_mut().map_or(Poll::Pending, |long| long.as_mut().poll(cx));
        };
        let stop = ready!(sprint.go(under_way, cx));
        let Some(state) = state.take() else {
            return Poll::Pending;
        };
        let stop = stop?;
        if let Stop::Done = stop {
            return Poll::Ready(Ok(Outcome::Done(owned(state))));
        }
        let driver = sprint.driver(state, stop);
        long.insert(Box::pin(driver)).as_mut().poll(cx)
    }

    /// Begins with this input, or goes the long way if the thread is not new.
    fn begin(&mut self, input: S::Input) -> Result<(), RunError> {
        let Self {
            state, sprint, long, ..
        } = self;
        if !sprint.claim()? {
            let run = Run {
                graph: sprint.graph.clone(),
                key: sprint.key.clone(),
                beginning: Beginning::Input(input),
                step_limit: Some(sprint.step_limit),
                options: None,
            };
            *long = Some(Box::pin(run.open()));
            return Ok(());
        }
        let begun = started(&sprint.graph.parts.shape, input, &sprint.key)?;
        let begun = state.insert(begun);
        sprint.keep(begun, CheckpointSource::Input, Some(RunStatus::Running))
    }
}

impl<S: State> Drop for Sprint<S> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<S: State> Unpin for Going<S> {}

impl<S: State> Future for Going<S> {
    type Output = Ended<S>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Ended<S>> {
        let polled = self.go_on(cx);
        if polled.is_ready() {
            // Whoever keeps what has ended keeps no thread.
            self.sprint.release();
        }
        polled
    }
}

impl<S: State> Sprint<S> {
    /// Takes the thread, where threads are kept. Says whether it is new, or nothing is kept.
    fn claim(&mut self) -> Result<bool, RunError> {
        let Some(store) = self.graph.store.as_ref().and_then(|store| store.at_once()) else {
            return Ok(true);
        };
        let busy = &self.graph.setting.busy;
        let Some(turn) = busy.hold_first(&self.key) else {
            return Ok(false);
        };
        let claimed = store.claim_new(&self.key);
        let Ok(Some((epoch, line))) = claimed else {
            busy.release(turn);
            return claimed.map(|_| false).map_err(Into::into);
        };
        let (run, now) = self.graph.setting.clock.id_and_now();
        self.kept = Some(Kept {
            line,
            epoch,
            head: None,
            run: RunId::from(run),
            saves: 0,
            sizes: Sizes::default(),
            newest: (now, Uuid::nil()),
            turn,
        });
        Ok(true)
    }

    /// Gives its thread's turn on.
    fn release(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.graph.setting.busy.release(kept.turn);
        }
    }

    /// Goes as far as it can.
    fn go(&mut self, state: &mut Arc<S>, cx: &mut Poller<'_>) -> Poll<Result<Stop<S>, RunError>> {
        let (at, mut entered) = (Cell::new(At::Between), None);
        // All that the user has written runs here: nodes, reducers, branches.
        let gone = std::panic::catch_unwind(AssertUnwindSafe(|| self.step(state, cx, &mut entered, &at)));
        match gone {
            Ok(stop) => stop,
            Err(panic) => Poll::Ready(Ok(caught(panic, entered, at.get()))),
        }
    }

    /// One step after another.
    fn step(
        &mut self,
        state: &mut Arc<S>,
        cx: &mut Poller<'_>,
        entered: &mut Option<Running<S>>,
        at: &Cell<At>,
    ) -> Poll<Result<Stop<S>, RunError>> {
        let goes = |way| Poll::Ready(Ok(Stop::Goes(way)));
        loop {
            let parts = &*self.graph.parts;
            let spec = parts.nodes.get(self.node).filter(|spec| spec.short);
            let Some(spec) = spec.filter(|_| self.steps_left > 0) else {
                return goes(Way::General);
            };
            // Nodes that never wait would not let others run.
            ready!(poll_proceed(cx)).made_progress();
            self.steps_left -= 1;
            self.step += 1;
            at.set(At::Node);
            let context = || Context {
                task: self.task_context(),
                emitter: None,
            };
            let running = entered.insert((spec.call)(state, None, LazyContext(&context)));
            let output = match running.go_on(cx) {
                Poll::Ready(Ok(output)) => output,
                Poll::Ready(Err(error)) => return goes(Way::Begun(Begun::Ended(Err(error)))),
                Poll::Pending => return goes(entered.take().map_or(Way::General, |it| Way::Begun(Begun::Waits(it)))),
            };
            // A node that has a context may have asked, spent, or written something down.
            let plain = self.context.get().is_none() && output.leads_nowhere_itself();
            if !plain || parts.undeclared(self.node, &output.update).is_some() {
                return goes(entered.take().map_or(Way::General, Way::Gave));
            }
            at.set(At::Merging);
            Arc::make_mut(state).take_in(&mut output.update, &mut self.changes);
            at.set(At::LeadingOn);
            let next = parts.ways_on(self.node, state, None).unwrap_or_default();
            at.set(At::Between);
            match next {
                [node] => self.node = *node,
                [] => {
                    let saved = self.keep(state, CheckpointSource::Step, Some(RunStatus::Done));
                    return Poll::Ready(saved.map(|()| Stop::Done));
                }
                many => return Poll::Ready(Ok(Stop::Many(Tasks::of_nodes(many)))),
            }
            if self.kept.is_some() {
                self.keep(state, CheckpointSource::Step, None)?;
            }
            self.changes.clear();
            *entered = None;
        }
    }

    /// Writes down what the run has come to, if it is kept.
    fn keep(&mut self, state: &S, source: CheckpointSource, status: Option<RunStatus>) -> Result<(), RunError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let parts = &*self.graph.parts;
        let first = kept.saves == 0;
        let now = if first {
            kept.newest.0
        } else {
            self.graph.setting.clock.now()
        };
        kept.saves = kept.saves.wrapping_add(1);
        let id = checkpoint_id(kept.run.as_uuid(), kept.epoch, kept.saves);
        let next = (status != Some(RunStatus::Done)).then_some(self.node);
        let created_at = to_microseconds(now);
        let checkpoint = NewCheckpoint {
            id,
            step: self.step,
            source,
            payload: stored_state(state, &self.changes, &mut kept.sizes)?,
            frontier: Frontier::store_plain(parts, next)?,
            fingerprint: parts.topology.fingerprint,
            state_version: S::version(&parts.shape),
            created_at,
        };
        let run = status.map(|status| RunMark {
            run: kept.run,
            graph: parts.topology.graph.clone(),
            status,
            error: None,
        });
        kept.head = kept.line.extend(&self.key, kept.epoch, kept.head, checkpoint, run)?;
        kept.newest = (created_at, id);
        self.changes.clear();
        Ok(())
    }

    /// What the node of the step under way is given, if it asks.
    fn task_context(&self) -> TaskContext {
        let run = self.context.get_or_init(|| Arc::new(self.run_context(self.step - 1)));
        let newest = self.kept.as_ref().map(|kept| kept.newest);
        TaskContext {
            run: Arc::clone(run),
            node: self.node,
            send: None,
            step: self.step,
            attempt: 1,
            recorded_at: newest.map(|(at, _)| at),
            inherited: None,
            held: None,
            arrived: None,
            begins_at: newest.map_or(Uuid::nil(), |(_, id)| id),
            cut: None,
            life: None,
            caught: None,
            calls: None,
        }
    }

    /// What tasks share; so many steps are merged.
    fn run_context(&self, merged: i64) -> RunContext {
        let handle = self.kept.as_ref().zip(self.graph.store.as_ref());
        let handle = handle.map(|(kept, store)| {
            let handle = StoreHandle::new(Arc::clone(store), kept.epoch, kept.head, Durability::Sync);
            handle.with_line(Some(Arc::clone(&kept.line)))
        });
        let run = self.kept.as_ref().map(|kept| kept.run);
        let mut options = self.options();
        let context = context_of(&self.graph, self.key.clone(), handle, (run, self.step), &mut options);
        context.meter.show_steps(merged.unsigned_abs());
        context.meter.show_steps_left(self.steps_left);
        context
    }

    fn options(&self) -> Options<S> {
        Options {
            step_limit: self.step_limit,
            ..Options::default()
        }
    }

    /// Goes on with a driver from where this stands.
    fn driver(&mut self, state: Arc<S>, stop: Stop<S>) -> impl Future<Output = Ended<S>> + Send + use<S> {
        let begun = matches!(stop, Stop::Goes(Way::Begun(_) | Way::Gave(_)) | Stop::Panicked(..));
        let merged = self.step - i64::from(begun);
        let context = self.context.take();
        let context = context.unwrap_or_else(|| Arc::new(self.run_context(merged)));
        let (hold, kept) = match self.kept.take() {
            Some(kept) => (
                Some(kept.turn.hold(&self.graph.setting.busy)),
                Some((kept.saves, kept.sizes, kept.newest)),
            ),
            None => (None, None),
        };
        let mut driver = driver_in(&self.graph, context, state, Sink::Nobody, hold, &mut self.options());
        driver.stand_at_step(self.node, self.steps_left, merged.unsigned_abs());
        driver.changes = mem::take(&mut self.changes);
        if let Some((saves, sizes, (created_at, id))) = kept {
            (driver.late.saves, driver.sizes) = (saves, sizes);
            (driver.shared.recorded_at, driver.shared.begins_at) = (Some(created_at), id);
        }
        let way = match stop {
            Stop::Goes(way) => way,
            Stop::Panicked(doing, panic) => Way::Failed(driver.panicked_at(doing, panic)),
            Stop::Many(tasks) => {
                driver.tasks = tasks;
                Way::Merged
            }
            Stop::Done => Way::General,
        };
        async move { driver.drive_on(Some(way)).await?.into_outcome() }
    }
}

impl<S: State> Driver<S> {
    /// After so many steps, this node is next or under way.
    fn stand_at_step(&mut self, node: usize, steps_left: u32, merged: u64) {
        self.tasks.set_node(node);
        self.steps_left = steps_left;
        self.may_pause = true;
        self.account.spent.steps = merged;
    }
}

/// What a panic means.
fn caught<S: State>(panic: Box<dyn Any + Send>, entered: Option<Running<S>>, at: At) -> Stop<S> {
    let doing = match at {
        At::Node => {
            // What the node holds may panic once more as it goes; the first panic is what is told.
            let _told_already = guarded(|| drop(entered));
            let message = panic_message(panic.as_ref());
            return Stop::Goes(Way::Begun(Begun::Ended(Err(NodeError::terminal(NodePanic {
                message,
            })))));
        }
        At::Merging => Doing::Merging(0),
        At::LeadingOn => Doing::LeadingOn(0),
        At::Between => std::panic::resume_unwind(panic),
    };
    let message = panic_message(panic.as_ref());
    Stop::Panicked(doing, NodePanic { message })
}
