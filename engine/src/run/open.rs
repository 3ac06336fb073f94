//! How a run opens: takes its thread and loads what there is, before anything is written.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, Ordering},
};

use tokio::time::Instant;

use super::{
    Beginning, Cancel, Journal, OnPending, Options, Outcome, Run,
    answer::answer_records,
    barrier::Sizes,
    behind::{Durability, StoreHandle, Writes},
    budget::{Account, Meter},
    busy::Hold,
    driver::{Driver, RunEnd},
    edit::AsNode,
    error::RunError,
    event::Sink,
    frontier::Frontier,
    guard::guarded,
    hosting::share_a_step,
    layers,
    limits::RunLimit,
    plan::{Departure, Tasks, Waiting},
    recording::Recording,
    saver::Late,
    step::Shared,
};
use crate::{
    checkpoint::{At, Checkpoint, Checkpointer, Seq, StoreDurability},
    dynamic::Compat,
    graph::Graph,
    id::{RunId, ThreadKey},
    node::{Flights, RunContext},
    state::{Changes, State, StateError},
};

/// A run that has begun, or that had nothing left to do.
pub(crate) enum Opened<S: State> {
    Open(Box<Driver<S>>),
    Ended(Outcome<S>),
}

impl<S: State> Opened<S> {
    /// Runs what is open to its end.
    pub(crate) async fn finish(self) -> Result<RunEnd<S>, RunError> {
        match self {
            Self::Ended(outcome) => Ok(RunEnd::Outcome(outcome)),
            Self::Open(driver) => layers::drive(driver).await,
        }
    }
}

/// A run about to open as its options say.
pub(super) fn prepare<S: State>(mut run: Run<S>) -> (Box<Opening<S>>, Beginning<S>) {
    let mut sender = None;
    if let Some(options) = &mut run.options {
        sender = options.events.take();
        options.reader_gone = sender.as_ref().and_then(|sender| sender.reader_gone.clone());
    }
    prepare_with(run, Sink::of(sender))
}

/// The same of a run whose events go to `sink`. In a box, as everything here that is large or rare: what the future of a
/// run has room for is moved with it.
pub(crate) fn prepare_with<S: State>(run: Run<S>, sink: Sink<S>) -> (Box<Opening<S>>, Beginning<S>) {
    let Run {
        graph,
        key,
        beginning,
        step_limit,
        options,
    } = run;
    let mut options = options.unwrap_or_default();
    options.step_limit = step_limit.unwrap_or(options.step_limit);
    (Box::new(Opening::of(graph, key, options, sink)), beginning)
}

/// Takes the thread and begins.
pub(crate) async fn open<S: State>(
    (mut opening, beginning): (Box<Opening<S>>, Beginning<S>),
) -> Result<Opened<S>, RunError> {
    opening.refuse_unfit()?;
    let found = match opening.take(Some(&beginning)).await? {
        Taken::Cancelled => return Ok(Opened::Ended(Outcome::Cancelled)),
        Taken::Found(found) => found,
    };
    if let (true, Some(own)) = (opening.options.accumulates, opening.options.run)
        && let Some(last) = found.as_ref().and_then(|found| found.run.as_ref())
        && share_a_step(last.run, own)
    {
        return Err(RunError::Busy {
            thread: opening.key.clone(),
        });
    }
    match beginning {
        Beginning::Input(input) => opening.admit(input, found).await.map(Opened::Open),
        Beginning::Resume(answers) => Box::pin(opening.resume(answers, found)).await,
    }
}

/// Opens a thread to edit it.
pub(super) async fn edit<S: State>(
    run: Run<S>,
    sink: Sink<S>,
    update: S::Update,
    as_node: AsNode,
) -> Result<Seq, RunError> {
    let mut opening = Box::new(Opening::of(run.graph, run.key, run.options.unwrap_or_default(), sink));
    if opening.graph.store.is_none() {
        return Err(opening.no_checkpointer());
    }
    match opening.take(None).await? {
        Taken::Cancelled => Err(opening.unknown()),
        Taken::Found(found) => opening.write_edit(found, update, as_node).await,
    }
}

/// Whether a thread is ours now.
enum Taken {
    Cancelled,
    /// It is, with the checkpoint to begin from.
    Found(Option<Box<Checkpoint>>),
}

/// Everything a driver is made of, before the state is known.
pub(crate) struct Opening<S: State> {
    pub(super) graph: Graph<S>,
    pub(super) key: ThreadKey,
    pub(super) options: Box<Options<S>>,
    sink: Sink<S>,
    deadline: Option<Instant>,
    hold: Option<Hold>,
    pub(super) handle: Option<StoreHandle>,
}

impl<S: State> Opening<S> {
    pub(super) fn of(graph: Graph<S>, key: ThreadKey, mut options: Box<Options<S>>, sink: Sink<S>) -> Self {
        options.time_limit = options.time_limit.or(graph.parts.rules.deadline);
        Self {
            // A deadline is of the running process, never of the record.
            deadline: options.time_limit.map(|limit| Instant::now() + limit),
            graph,
            key,
            options,
            sink,
            hold: None,
            handle: None,
        }
    }

    /// Takes the thread and finds the checkpoint to begin from.
    async fn take(&mut self, beginning: Option<&Beginning<S>>) -> Result<Taken, RunError> {
        match self.graph.store.clone() {
            None => Ok(Taken::Found(None)),
            Some(store) => {
                if self.take_new(&store, beginning)? {
                    return Ok(Taken::Found(None));
                }
                Box::pin(self.take_from(store, beginning)).await
            }
        }
    }

    /// Takes a thread that is not there yet, from a store that never waits. Says whether it was so.
    fn take_new(&mut self, store: &Arc<dyn Checkpointer>, beginning: Option<&Beginning<S>>) -> Result<bool, RunError> {
        let begins = matches!(beginning, Some(Beginning::Input(_))) && self.options.at.is_none();
        let Some(quick) = store.at_once().filter(|_| begins) else {
            return Ok(false);
        };
        self.hold = self.graph.setting.busy.hold_free(&self.key);
        if self.hold.is_none() {
            return Ok(false);
        }
        let Some((epoch, line)) = quick.claim_new(&self.key)? else {
            return Ok(false);
        };
        let handle = StoreHandle::new(Arc::clone(store), epoch, None, self.options.durability);
        self.handle = Some(handle.with_line(Some(line)));
        Ok(true)
    }

    async fn take_from(
        &mut self,
        store: Arc<dyn Checkpointer>,
        beginning: Option<&Beginning<S>>,
    ) -> Result<Taken, RunError> {
        if self.hold.is_none() {
            let Some(hold) = self.turn().await? else {
                return Ok(Taken::Cancelled);
            };
            self.hold = Some(hold);
        }
        let mut head = store.get(&self.key, At::Head).await?;
        // Before the claim: a call that is refused must not take the thread away from a run under way.
        if let Some(beginning) = beginning {
            self.refuse(beginning, head.as_ref())?;
        }
        let keeps_on = !matches!(beginning, Some(Beginning::Input(_)));
        if let Some(head) = head.as_ref().filter(|_| keeps_on && self.options.at.is_none()) {
            self.choose_version(head)?;
        }
        if head.is_none() && !keeps_on && self.options.at.is_none() && store.at_once().is_none() {
            // The admission claims a new thread: if another takes it meanwhile, it conflicts.
            self.handle = Some(StoreHandle::unclaimed(store, self.options.durability));
            return Ok(Taken::Found(None));
        }
        let (epoch, line) = match store.at_once() {
            Some(quick) => quick.claim(&self.key).map(|(epoch, line)| (epoch, Some(line)))?,
            None => (store.claim(&self.key).await?, None),
        };
        if head.is_some() {
            // Whoever had the thread may have written until now. A new thread's first commit would conflict.
            head = store.get(&self.key, At::Head).await?;
        }
        let newest = head.as_ref().map(|checkpoint| checkpoint.info.seq);
        self.handle = Some(StoreHandle::new(store, epoch, newest, self.options.durability).with_line(line));
        let found = match self.options.at {
            None => head,
            Some(at) => Some(self.addressed(at).await?),
        };
        if let Some(found) = found.as_ref().filter(|_| keeps_on) {
            self.choose_version(found)?;
        }
        Ok(Taken::Found(found.map(Box::new)))
    }

    /// Waits for the thread's turn, or `None` if the run is cancelled meanwhile.
    async fn turn(&self) -> Result<Option<Hold>, RunError> {
        let limit = self.options.time_limit.unwrap_or_default();
        let timed_out = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            match &self.options.cancel {
                Some(Cancel(token)) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            hold = self.graph.setting.busy.hold(&self.key, self.options.on_busy) => {
                let busy = || RunError::Busy { thread: self.key.clone() };
                hold.ok_or_else(busy).map(Some)
            }
            () = cancelled => Ok(None),
            () = timed_out => Err(RunError::TimeLimit { thread: Box::new(self.key.clone()), limit }),
        }
    }

    /// The checkpoint that the run is to begin from.
    async fn addressed(&self, at: At) -> Result<Checkpoint, RunError> {
        let Some(store) = &self.graph.store else {
            return Err(self.no_checkpointer());
        };
        let found = store.get(&self.key, at).await?;
        found.ok_or_else(|| RunError::NoCheckpoint {
            thread: Box::new(self.key.clone()),
            at: at.to_string(),
        })
    }

    /// What the store or the graph cannot do for the run: a store that may lose what it has said to have kept is no ground
    /// for a run that relies on it, and a budget that leads to a node needs one.
    fn refuse_unfit(&self) -> Result<(), RunError> {
        let kept = self.graph.store.as_ref().map(|store| store.durability());
        if self.options.durability == Durability::Sync && kept == Some(StoreDurability::Process) {
            return Err(RunError::NotDurable {
                graph: self.graph.name().to_owned(),
            });
        }
        let recorded = self.options.recording.unwrap_or(self.graph.recording) != Recording::Off;
        if self.options.durability == Durability::Exit && recorded && kept.is_some() {
            return Err(RunError::RecordedExit);
        }
        let routes = self.options.budget.is_some_and(|budget| budget.routes());
        if routes && self.graph.parts.on_budget.is_none() {
            return Err(RunError::NoBudgetNode {
                graph: self.graph.name().to_owned(),
            });
        }
        Ok(())
    }

    /// What is wrong with the call itself.
    fn refuse(&self, beginning: &Beginning<S>, head: Option<&Checkpoint>) -> Result<(), RunError> {
        match (beginning, head) {
            (Beginning::Input(_), None) => Ok(()),
            (Beginning::Input(_), Some(head)) => self.refuse_pending(head),
            (Beginning::Resume(answers), Some(head)) => {
                let records = if self.options.at.is_some() {
                    &[]
                } else {
                    head.records.as_slice()
                };
                answer_records(records, answers.clone(), self.graph.parts.compat).map(|_fitting| ())
            }
            (Beginning::Resume(_), None) => Err(self.unknown()),
        }
    }

    pub(super) fn unknown(&self) -> RunError {
        RunError::UnknownThread {
            thread: self.key.clone(),
        }
    }

    pub(super) fn no_checkpointer(&self) -> RunError {
        RunError::NoCheckpointer {
            graph: self.graph.name().to_owned(),
        }
    }

    /// Whoever names a checkpoint to begin from leaves what was pending behind on purpose.
    pub(super) fn refuse_pending(&self, head: &Checkpoint) -> Result<(), RunError> {
        let on_pending = self.options.on_pending.unwrap_or(match self.graph.parts.compat {
            Compat::Strict => OnPending::Reject,
            Compat::Recorded => OnPending::Discard,
        });
        if on_pending != OnPending::Reject || self.options.at.is_some() {
            return Ok(());
        }
        let names = Frontier::decode(&head.info.frontier)?.names();
        if names.is_empty() {
            return Ok(());
        }
        Err(RunError::Pending {
            thread: self.key.clone(),
            tasks: names.join(", "),
        })
    }

    pub(super) fn driver(self: Box<Self>, state: S, step: i64, run: Option<RunId>, journal: Journal) -> Box<Driver<S>> {
        self.driver_at(Arc::new(state), step, run, journal)
    }

    /// A run without an id draws one when it is asked for.
    pub(super) fn driver_at(
        self: Box<Self>,
        state: Arc<S>,
        step: i64,
        run: Option<RunId>,
        journal: Journal,
    ) -> Box<Driver<S>> {
        let Self {
            graph,
            key,
            options,
            sink,
            deadline,
            hold,
            handle,
        } = *self;
        let ground = Ground {
            graph,
            key,
            sink,
            deadline,
            hold,
            handle,
        };
        driver_of(ground, *options, state, step, run, journal)
    }
}

/// What a driver is made of, beside its state and what the run's options say.
pub(super) struct Ground<S: State> {
    pub(super) graph: Graph<S>,
    pub(super) key: ThreadKey,
    pub(super) sink: Sink<S>,
    pub(super) deadline: Option<Instant>,
    pub(super) hold: Option<Hold>,
    pub(super) handle: Option<StoreHandle>,
}

pub(super) fn driver_of<S: State>(
    ground: Ground<S>,
    mut options: Options<S>,
    state: Arc<S>,
    step: i64,
    run: Option<RunId>,
    journal: Journal,
) -> Box<Driver<S>> {
    let Ground {
        graph,
        key,
        sink,
        deadline,
        hold,
        handle,
    } = ground;
    let mut context = context_of(&graph, key, handle, (run, step), &mut options);
    (context.deadline, context.journal) = (deadline, journal);
    driver_in(&graph, Arc::new(context), state, sink, hold, &mut options)
}

/// What the tasks of a run share, without a time to end at, and with nothing left behind.
pub(super) fn context_of<S: State>(
    graph: &Graph<S>,
    key: ThreadKey,
    store: Option<StoreHandle>,
    (run, step): (Option<RunId>, i64),
    options: &mut Options<S>,
) -> RunContext {
    RunContext {
        key,
        id: run.map(OnceLock::from).unwrap_or_default(),
        outer: options.outer.take(),
        compat: graph.parts.compat,
        setting: Arc::clone(&graph.setting),
        cancel: options.cancel.take().map(|Cancel(token)| token),
        drain: options.drain.take(),
        meter: Meter::of(options.budget),
        reader_gone: options.reader_gone.take(),
        deadline: None,
        step_limit: options.step_limit,
        recording: options.recording.unwrap_or(graph.recording),
        replay: options.replay.take(),
        provided: std::mem::take(&mut options.provided),
        store,
        journal: Journal::default(),
        flights: Flights::default(),
        limit: options.concurrency.map(RunLimit::new),
        held: options.held.take(),
        cache: (graph.cache.clone())
            .or_else(|| options.cache.take())
            .or_else(|| graph.parts.cache.clone()),
        step: AtomicI64::new(step),
    }
}

/// The driver of a run whose tasks share this.
pub(super) fn driver_in<S: State>(
    graph: &Graph<S>,
    context: Arc<RunContext>,
    state: Arc<S>,
    sink: Sink<S>,
    hold: Option<Hold>,
    options: &mut Options<S>,
) -> Box<Driver<S>> {
    let said = (options.stop_before.take(), options.stop_after.take());
    let step = context.step.load(Ordering::Acquire);
    Box::new(Driver {
        _writes: Writes::of(&context),
        waiting: Waiting::new(&graph.parts.topology),
        breakpoints: graph.parts.breakpoints.unless_said(said.0, said.1),
        shared: Shared::of(Arc::clone(&graph.parts), context, state, sink, step),
        tasks: Tasks::new(),
        account: Account::default(),
        budget: options.budget,
        steps_left: options.step_limit,
        step_limit: options.step_limit,
        time_limit: options.time_limit,
        sizes: Sizes::default(),
        changes: Changes::default(),
        departure: Departure::default(),
        ended_at: None,
        kept: Vec::new(),
        origin: None,
        parent: None,
        late: Late::default(),
        has_records: false,
        straight: false,
        may_pause: false,
        _hold: hold,
    })
}

pub(crate) fn decode<S: State>(shape: &S::Shape, checkpoint: &Checkpoint) -> Result<S, RunError> {
    let parts: Vec<&[u8]> = checkpoint.parts.iter().map(AsRef::as_ref).collect();
    let version = checkpoint.info.state_version;
    let decoded = guarded(|| S::decode_version(shape, version, &parts));
    Ok(decoded.map_err(|panic| StateError::Decode(panic.to_string()))??)
}

/// A state that was migrated has no parts to build on: a snapshot is due.
pub(super) fn sizes<S: State>(shape: &S::Shape, checkpoint: &Checkpoint) -> Sizes {
    if checkpoint.info.state_version != S::version(shape) {
        return Sizes::default();
    }
    let mut parts = checkpoint.parts.iter().map(|part| part.len());
    Sizes {
        snapshot: parts.next().unwrap_or_default(),
        deltas: parts.sum(),
    }
}
