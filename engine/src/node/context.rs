//! What a node may ask of the run it is part of.

use std::{
    any::{Any, TypeId, type_name},
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicI64},
    time::Duration,
};

use chrono::{DateTime, Utc};
use rand::{SeedableRng, rngs::StdRng};
use schemars::schema_for;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Calls, Caught, Effect, Held, Life, NodeError,
    flight::{Cut, Flights},
    handler_task,
};
use crate::{
    ask::{Ask, Question},
    cache::NodeCache,
    checkpoint::{Commit, TaskRecord},
    dynamic::Compat,
    graph::{Leave, Setting},
    id::{RunId, TenantId, ThreadKey},
    run::{Drain, Hears, Inherited, Inside, Journal, Meter, Notes, Recording, RunLimit, StoreHandle, SubgraphError},
};

/// What a node may ask of its run: who it runs for, its limits, events, questions, outside effects, recorded time.
///
/// `E` is the node's own event type. The context is cheap to clone and may move into other tasks.
pub struct Context<E> {
    pub(crate) task: TaskContext,
    pub(crate) emitter: Option<Emitter<E>>,
}

/// A node's context, made only if the node takes one.
#[doc(hidden)]
pub struct LazyContext<'a, E>(pub(crate) &'a dyn Fn() -> Context<E>);

impl<E> LazyContext<'_, E> {
    pub(crate) fn make(self) -> Context<E> {
        (self.0)()
    }
}

impl<E> fmt::Debug for LazyContext<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyContext").finish_non_exhaustive()
    }
}

/// Who had arrived at the joins that have led to a step: each target with its sources.
pub(crate) type Arrived = Arc<[(usize, Vec<usize>)]>;

/// Where a task stands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TaskContext {
    pub(crate) run: Arc<RunContext>,
    pub(crate) node: usize,
    pub(crate) send: Option<u32>,
    pub(crate) step: i64,
    pub(crate) attempt: u32,
    /// What its step has of another version of the program, if anything.
    pub(crate) inherited: Option<Arc<Inherited>>,
    /// When the step began, as its checkpoint recorded it; without a store, nobody recorded it.
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    /// The permits that it and the nodes around it hold.
    pub(crate) held: Option<Arc<Held>>,
    /// Who had arrived at the joins that have led to this step: each target with its sources.
    pub(crate) arrived: Option<Arrived>,
    /// Set where a join may cancel the task, or the graph cut off the step.
    pub(crate) cut: Option<Arc<Cut>>,
    /// The checkpoint that the step begins at, known before it is stored; nil without a store.
    pub(crate) begins_at: Uuid,
    /// Where its calls of services are recorded, or given from.
    pub(crate) calls: Option<Arc<Calls>>,
    /// The attempt, if it may end before its node does, or the one around that may.
    pub(crate) life: Option<Arc<Life>>,
    /// The failure that this task's node handles.
    pub(crate) caught: Option<Arc<Caught>>,
}

/// What all tasks of a run share.
pub(crate) struct RunContext {
    pub(crate) key: ThreadKey,
    /// Drawn when somebody asks for it, unless it was given.
    pub(crate) id: OnceLock<RunId>,
    /// The task that this run is part of, if its graph is inside another.
    pub(crate) outer: Option<Box<TaskContext>>,
    pub(crate) compat: Compat,
    pub(crate) setting: Arc<Setting>,
    /// What cancels the run, if anything may.
    pub(crate) cancel: Option<CancellationToken>,
    /// What drains the run, if anything may.
    pub(crate) drain: Option<Drain>,
    pub(crate) meter: Meter,
    pub(crate) reader_gone: Option<CancellationToken>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) step_limit: u32,
    pub(crate) recording: Recording,
    /// Set while a record is replayed.
    pub(crate) replay: Option<Arc<Notes>>,
    pub(crate) provided: TypeMap,
    pub(crate) store: Option<StoreHandle>,
    pub(crate) journal: Journal,
    pub(crate) flights: Flights,
    pub(crate) limit: Option<RunLimit>,
    /// The permits of the nodes around this run.
    pub(crate) held: Option<Arc<Held>>,
    pub(crate) cache: Option<Arc<dyn NodeCache>>,
    /// The step under way.
    pub(crate) step: AtomicI64,
}

impl RunContext {
    /// The run's name.
    #[inline]
    pub(crate) fn run_id(&self) -> RunId {
        *self.id.get_or_init(|| RunId::from(self.setting.clock.id()))
    }

    /// Whether the run was cancelled, by its handle or by its reader.
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        let ways = [&self.cancel, &self.reader_gone].into_iter().flatten();
        ways.into_iter().any(CancellationToken::is_cancelled)
    }

    /// Resolves when the run is cancelled.
    pub(crate) async fn cancelled(&self) {
        match (&self.cancel, &self.reader_gone) {
            (None, None) => std::future::pending().await,
            (Some(one), None) | (None, Some(one)) => one.cancelled().await,
            (Some(cancel), Some(gone)) => tokio::select! {
                () = cancel.cancelled() => {}
                () = gone.cancelled() => {}
            },
        }
    }

    /// Resolves when the run has taken as long as it may.
    pub(crate) async fn timed_out(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// Values by type: a run's dependencies.
#[derive(Clone, Default)]
pub(crate) struct TypeMap(Option<Box<Values>>);

type Values = BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl TypeMap {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0
            .get_or_insert_default()
            .insert(TypeId::of::<T>(), Arc::new(value));
    }

    pub(crate) fn contains(&self, id: TypeId) -> bool {
        self.0.as_ref().is_some_and(|values| values.contains_key(&id))
    }

    fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let value = self.0.as_ref()?.get(&TypeId::of::<T>())?;
        value.downcast_ref()
    }
}

/// Hands events of one type to whoever listens to the run.
pub(crate) trait Emit<E>: Send + Sync {
    /// The caller holds a permit of the gate, so there is room.
    fn send(&self, node: Cow<'static, str>, event: E);

    /// The same for what happens in a graph inside a node. Each host puts its name behind `hosts`.
    fn send_inside(&self, hosts: Vec<Cow<'static, str>>, inside: Inside<E>);

    /// What the reader has asked for.
    fn hears(&self) -> Hears;
}

/// The way out for a node's events.
pub(crate) struct Emitter<E> {
    pub(crate) out: Arc<dyn Emit<E>>,
    pub(crate) gate: Arc<Semaphore>,
}

impl<E> Clone for Emitter<E> {
    fn clone(&self) -> Self {
        Self {
            out: Arc::clone(&self.out),
            gate: Arc::clone(&self.gate),
        }
    }
}

struct Narrow<E>(Arc<dyn Emit<E>>);

impl<E, F: Into<E>> Emit<F> for Narrow<E> {
    fn send(&self, node: Cow<'static, str>, event: F) {
        self.0.send(node, event.into());
    }

    fn send_inside(&self, hosts: Vec<Cow<'static, str>>, inside: Inside<F>) {
        self.0.send_inside(hosts, inside.map());
    }

    fn hears(&self) -> Hears {
        self.0.hears()
    }
}

impl TaskContext {
    /// Name of the node.
    pub(crate) fn node_name(&self) -> Cow<'static, str> {
        self.run.setting.topology.name(self.node).clone()
    }

    /// The task's name inside its step.
    pub(crate) fn id(&self) -> String {
        match &self.caught {
            None => Inherited::task_id(
                self.inherited.as_deref(),
                &self.run.setting.topology,
                self.node,
                self.send,
            ),
            // Under the name that the handler had when the failure was handed to it.
            Some(caught) => match &caught.failure.handler {
                Some(handler) => handler_task(handler, &caught.task),
                None => handler_task(&self.node_name(), &caught.task),
            },
        }
    }

    /// The same for every entry of the same task, different for every other.
    fn seed(&self, purpose: &str) -> Uuid {
        match &self.calls {
            Some(calls) => calls.seed(purpose, || self.own_seed(purpose)),
            None => self.own_seed(purpose),
        }
    }

    fn own_seed(&self, purpose: &str) -> Uuid {
        let run = &self.run;
        let text = format!(
            "{}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{purpose}",
            run.key,
            run.run_id(),
            self.begins_at,
            self.step,
            self.id()
        );
        Uuid::new_v5(&run.run_id().as_uuid(), text.as_bytes())
    }

    /// Gives the same numbers for every entry of the same task.
    pub(crate) fn rng(&self, purpose: &str) -> StdRng {
        let (high, low) = self.seed(purpose).as_u64_pair();
        StdRng::seed_from_u64(high ^ low.rotate_left(32))
    }

    /// Makes facts about this task durable, once the checkpoint that its step begins at is.
    pub(crate) async fn commit(&self, records: Vec<TaskRecord>) -> Result<(), NodeError> {
        if let Some(handle) = &self.run.store {
            // A save that failed stops the run: trying again is of no use.
            self.run.settled().await.map_err(NodeError::terminal)?;
            let commit = Commit {
                records: records.clone(),
                ..Commit::default()
            };
            handle.commit(&self.run.key, commit).await?;
        }
        self.run.journal.keep(records);
        self.beat();
        Ok(())
    }

    /// Whether the run is cancelled, or this task by a join, or its step.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.run.is_cancelled() || self.cut.as_ref().is_some_and(|cut| cut.token.is_cancelled())
    }

    /// What cancels this task, if anything may.
    pub(crate) fn cancel_token(&self) -> Option<&CancellationToken> {
        let cut = self.cut.as_ref().map(|cut| &cut.token);
        cut.or(self.run.cancel.as_ref())
    }

    /// Resolves when the task is to stop: at once, or when what is in flight has landed.
    pub(crate) async fn stopped(&self) {
        let Some(cut) = &self.cut else {
            self.run.cancelled().await;
            return self.run.flights.landed().await;
        };
        tokio::select! {
            biased;
            () = self.run.cancelled() => self.run.flights.landed().await,
            () = cut.token.cancelled() => cut.flights.landed().await,
        }
    }
}

impl<E: Send + 'static> Context<E> {
    /// Who this runs for. There is no other way to learn it, and no way to change it.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.task.run.key.tenant
    }

    /// The thread this runs on.
    #[must_use]
    pub fn thread(&self) -> &ThreadKey {
        &self.task.run.key
    }

    /// The run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.task.run.run_id()
    }

    /// Name of this node in its graph.
    #[must_use]
    pub fn node(&self) -> Cow<'static, str> {
        self.task.node_name()
    }

    /// Number of this step on its thread.
    #[must_use]
    pub const fn step(&self) -> i64 {
        self.task.step
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.task.attempt
    }

    /// How long the run may still take, if it has a time limit. Not recorded: it differs each time a node is entered.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.task
            .run
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Resolves when the run is cancelled, or this task by a join that waits for it no longer. The node is dropped soon after; wait on it only to leave earlier.
    pub async fn cancelled(&self) {
        self.task.stopped().await;
    }

    /// Whether the run is cancelled, or this task by a join that waits for it no longer.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task.is_cancelled()
    }

    /// Which sources had finished at the joins that led to this task, by name and in the order in which the joins name
    /// them: the same whenever this task is entered again. Empty for a task that no join led to.
    ///
    /// ```no_run
    /// # use stepgraph::{Context, NodeError};
    /// # async fn node(ctx: Context<()>) -> Result<(), NodeError> {
    /// if !ctx.arrived().contains(&"web".into()) {
    ///     println!("nothing came from the web in time");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn arrived(&self) -> Vec<Cow<'static, str>> {
        let task = &self.task;
        let all = task.arrived.iter().flat_map(|arrived| arrived.iter());
        let mut names = Vec::new();
        for source in all.filter(|(to, _)| *to == task.node).flat_map(|(_, sources)| sources) {
            let name = task.run.setting.topology.name(*source);
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// A value that the caller of the run has provided; a graph says by `requires` which it needs.
    ///
    /// # Errors
    /// Terminal, when the run was started without it.
    pub fn provided<T: Send + Sync + 'static>(&self) -> Result<&T, NodeError> {
        let missing = || {
            NodeError::terminal(format!(
                "the run was not provided with a `{}`: declare it by `requires`",
                type_name::<T>()
            ))
        };
        self.task.run.provided.get().ok_or_else(missing)
    }

    /// Hands an event to whoever listens to the run, waiting for room when the reader is slow. Nobody listening is no error.
    pub async fn emit(&self, event: E) {
        self.task.beat();
        if let Some(emitter) = &self.emitter
            && let Ok(permit) = emitter.gate.acquire().await
            && !self.task.is_over()
        {
            self.task.beat();
            permit.forget();
            emitter.out.send(self.task.node_name(), event);
        }
    }

    /// Hands an event over if there is room; says whether it did.
    #[must_use]
    pub fn try_emit(&self, event: E) -> bool {
        self.task.beat();
        let Some(emitter) = &self.emitter else { return false };
        if self.task.is_over() {
            return false;
        }
        let Ok(permit) = emitter.gate.try_acquire() else {
            return false;
        };
        permit.forget();
        emitter.out.send(self.task.node_name(), event);
        true
    }

    /// The time, recorded: the same whenever this task is entered again.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.task
            .recorded_at
            .unwrap_or_else(|| self.task.run.setting.clock.now())
    }

    /// A random number generator that gives the same numbers whenever this task is entered again.
    #[must_use]
    pub fn rng(&self, purpose: &str) -> StdRng {
        self.task.rng(purpose)
    }

    /// An id that is the same whenever this task is entered again; `purpose` tells several apart.
    #[must_use]
    pub fn uuid(&self, purpose: &str) -> Uuid {
        self.task.seed(purpose)
    }

    /// Ends the whole graph in favour of the graph around it, and leaves `value` to the node that hosts it. Nothing of the
    /// step is merged, and nothing more of this graph runs. The host takes the value by
    /// [`Subgraph::or_left`](crate::Subgraph::or_left); where there is no such host, the run fails.
    ///
    /// ```no_run
    /// # use stepgraph::{Context, NodeError};
    /// # async fn node(ctx: Context<()>) -> Result<(), NodeError> {
    /// return Err(ctx.leave(&"not a question for this desk"));
    /// # }
    /// ```
    #[must_use = "a node leaves by returning the error"]
    pub fn leave<T: serde::Serialize>(&self, value: &T) -> NodeError {
        match serde_json::to_value(value) {
            Ok(update) => NodeError::leaves(Leave {
                update,
                goto: Vec::new(),
            }),
            Err(error) => NodeError::terminal(error),
        }
    }

    /// Puts a question. The first time, the run pauses here whatever the node then returns; once answered, the node is
    /// entered again and the answer is given.
    ///
    /// # Errors
    /// Return the error at once by `?`: it is how the node stops.
    pub fn ask<Q: Ask>(&self, question: Q) -> Result<Q::Answer, NodeError> {
        self.ask_as(Q::NAME, question)
    }

    /// The same under a name of your own, for several questions of one type in one node.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a question is put once; a borrowed one would read as if it lived on"
    )]
    pub fn ask_as<Q: Ask>(&self, name: &str, question: Q) -> Result<Q::Answer, NodeError> {
        let task = &self.task;
        if task.run.store.is_none() && task.run.compat == Compat::Strict {
            return Err(NodeError::terminal(SubgraphError::QuestionNotKept {
                question: name.to_owned(),
                graph: task.run.setting.topology.graph.clone(),
            }));
        }
        task.refuse_late()?;
        let id = task.id();
        let answer = task.run.journal.answer(&id, name);
        let answer = answer.or_else(|| crate::run::unnamed_answer(task, &id, name));
        let problem = match answer.map(serde_json::from_value) {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => Some(format!("the answer does not fit: {error}")),
            None => None,
        };
        task.run.journal.ask(
            &id,
            Question {
                id: format!("{id}@{}/{name}", task.step),
                node: task.node_name().into_owned(),
                name: name.to_owned(),
                payload: serde_json::to_value(&question).map_err(NodeError::terminal)?,
                answer_schema: schema_for!(Q::Answer).to_value(),
                problem,
            },
        );
        Err(NodeError::asked())
    }

    /// Runs an outside effect once: its success, or its terminal error, is durable before the node goes on, and is given
    /// again instead of running the effect whenever the node is entered again. Without a checkpointer it just runs.
    ///
    /// ```no_run
    /// # use stepgraph::{Context, Effect, NodeError};
    /// # async fn charge(_: &str) -> Result<u64, std::io::Error> { Ok(1) }
    /// # async fn node(ctx: Context<()>) -> Result<(), NodeError> {
    /// let receipt: u64 = ctx.once("charge", Effect::idempotent(|key| async move { Ok(charge(key.as_str()).await?) })).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The effect's own error; the recorded one when it was terminal; a question when its outcome is in doubt.
    pub async fn once<T, F, Fut>(&self, key: &str, effect: Effect<F>) -> Result<T, NodeError>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send,
        F: Fn(super::IdempotencyKey) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, NodeError>> + Send,
    {
        effect.run(self, key).await
    }

    /// The context as a part of the node sees it, whose events convert into this one's.
    #[must_use]
    pub fn narrow<F: Into<E> + Send + 'static>(self) -> Context<F> {
        let emitter = self.emitter.map(|emitter| Emitter {
            out: Arc::new(Narrow(emitter.out)) as Arc<dyn Emit<F>>,
            gate: emitter.gate,
        });
        Context {
            task: self.task,
            emitter,
        }
    }
}

impl<E> Clone for Context<E> {
    fn clone(&self) -> Self {
        Self {
            task: self.task.clone(),
            emitter: self.emitter.clone(),
        }
    }
}

impl<E> fmt::Debug for Context<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("thread", &self.task.run.key)
            .field("run", &self.task.run.run_id())
            .field("node", &self.task.node_name())
            .field("step", &self.task.step)
            .field("attempt", &self.task.attempt)
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for Emitter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter")
            .field("room", &self.gate.available_permits())
            .finish_non_exhaustive()
    }
}
