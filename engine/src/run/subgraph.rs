//! A graph as a node of another.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use async_trait::async_trait;

use super::{
    Answers, Beginning, Cancel, OnBusy, Options, Outcome, Run,
    answer::open_questions,
    driver::RunEnd,
    error::RunError,
    event::{Hears, Inside, Sink},
    open::open_with,
};
use crate::{
    ask::Question,
    checkpoint::{At, RunStatus},
    graph::Graph,
    node::{Context, Emit, Emitter, InFlight, Node, NodeError},
    state::{FromState, State},
};

/// A graph as a node: `I` starts it, `O` is read from its last state. Made by [`Graph::as_node`].
///
/// Each task of its host begins it afresh, on a thread inside the host's. Entered again after a crash or an answer, it goes
/// on where it was. What its nodes emit becomes what the host emits, its questions become the host's, and a cancellation
/// of the outer run reaches it.
pub struct Subgraph<S: State, I, O> {
    graph: Graph<S>,
    ends: PhantomData<fn(I) -> O>,
}

impl<S: State, I, O> Subgraph<S, I, O> {
    pub(crate) const fn new(graph: Graph<S>) -> Self {
        Self {
            graph,
            ends: PhantomData,
        }
    }
}

impl<S: State, I, O> fmt::Debug for Subgraph<S, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subgraph").field("graph", &self.graph).finish()
    }
}

#[async_trait]
impl<S: State, I: Into<S::Input> + Send + 'static, O: FromState<S>> Node for Subgraph<S, I, O> {
    type Input = I;
    type Output = O;
    type Event = S::Event;

    async fn run(&self, input: I, ctx: Context<S::Event>) -> Result<O, NodeError> {
        let state = done(&self.graph, enter(&self.graph, &ctx, "", input.into()).await?)?;
        Ok(O::from_state(&Arc::new(state)))
    }
}

impl<E: Send + 'static> Context<E> {
    /// Runs a graph as part of this node, and gives its last state. It is begun once for each key: entered again after a
    /// crash, a failure or an answer, the node is given what the graph has come to, or the graph goes on where it was.
    ///
    /// Its questions become this node's, what its nodes emit becomes what this node emits, and a cancellation reaches it.
    ///
    /// # Errors
    /// What failed inside, or how this node stops while the graph waits; return it at once by `?`.
    pub async fn call<T: State>(&self, graph: &Graph<T>, key: &str, input: T::Input) -> Result<T, NodeError>
    where
        T::Event: Into<E>,
    {
        let ctx = self.clone().narrow();
        done(graph, enter(graph, &ctx, key, input).await?)
    }
}

/// The last state of a graph that has come to its own end.
fn done<S: State>(graph: &Graph<S>, end: RunEnd<S>) -> Result<S, NodeError> {
    match end {
        RunEnd::Outcome(Outcome::Done(state)) => Ok(state),
        RunEnd::Outcome(Outcome::Stalled { waiting, .. }) => Err(NodeError::terminal(format!(
            "graph `{}` stalled: {waiting:?}",
            graph.name()
        ))),
        RunEnd::Outcome(_) => Err(NodeError::terminal(format!(
            "graph `{}` has not come to its end",
            graph.name()
        ))),
        RunEnd::Left(leave) => Err(NodeError::left(*leave)),
    }
}

/// Runs a graph inside a task, on a thread inside the task's own; `key` tells several of one task apart.
pub(crate) async fn enter<S: State>(
    graph: &Graph<S>,
    ctx: &Context<S::Event>,
    key: &str,
    input: S::Input,
) -> Result<RunEnd<S>, NodeError> {
    if let Some(notes) = &ctx.task.run.replay {
        let thread = ctx.task.run.key.child(&host(ctx, key));
        return super::replay::inside(graph, ctx, notes, thread, input).await;
    }
    let beginning = beginning::<S>(ctx, key, input).await?;
    let run = inner(graph, ctx, key, beginning);
    if let Some(error) = run.missing() {
        return Err(NodeError::terminal(error));
    }
    let sink = ctx
        .emitter
        .clone()
        .map_or(Sink::Nobody, |emitter| Sink::Host(hosted(emitter, ctx.node())));
    // A cancellation reaches the inner run by itself; the host waits until it has kept what it has.
    let _in_flight = InFlight::enter(&ctx.task);
    let opened = open_with(run, sink).await.map_err(failed_inside)?;
    match Box::pin(opened.finish()).await.map_err(failed_inside)? {
        RunEnd::Outcome(Outcome::Asked(questions)) => Err(pass_on(ctx, key, questions)),
        RunEnd::Outcome(Outcome::Breakpoint(_)) => Err(NodeError::paused()),
        RunEnd::Outcome(Outcome::Drained) => Err(NodeError::drained()),
        RunEnd::Outcome(Outcome::Cancelled) => Err(NodeError::cancelled()),
        end => Ok(end),
    }
}

fn inner<S: State>(graph: &Graph<S>, ctx: &Context<S::Event>, key: &str, beginning: Beginning<S>) -> Run<S> {
    let outer = &ctx.task.run;
    let budget = ctx.task.budget_inside(graph);
    let mut graph = graph.clone();
    graph.store = outer.store.as_ref().map(|handle| Arc::clone(&handle.store));
    graph.clock = Arc::clone(&outer.clock);
    let options = Options {
        run: Some(outer.run),
        cancel: Cancel(ctx.task.cancel_token().clone()),
        reader_gone: outer.reader_gone.clone(),
        provided: outer.provided.clone(),
        recording: Some(outer.recording),
        time_limit: ctx.time_left(),
        step_limit: outer.step_limit,
        durability: outer.store.as_ref().map(|handle| handle.durability).unwrap_or_default(),
        outer: Some(ctx.task.clone()),
        budget,
        on_busy: OnBusy::Reject,
        concurrency: outer.limit.as_ref().map(|limit| limit.at_once),
        cache: outer.cache.clone(),
        held: ctx.task.held.clone().or_else(|| outer.held.clone()),
        ..Options::default()
    };
    Run {
        graph,
        key: outer.key.child(&host(ctx, key)),
        beginning,
        options,
    }
}

/// Name of the call in the inner thread's namespace: different for every step, the same for every entry.
fn host<E: Send + 'static>(ctx: &Context<E>, key: &str) -> String {
    let (id, colon) = (ctx.task.id(), if key.is_empty() { "" } else { ":" });
    if ctx.task.begins_at.is_nil() {
        // Nothing is kept without a store, but ids that inner nodes draw are made of the name.
        return format!("{id}{colon}{key}@{}", ctx.task.step);
    }
    format!("{id}{colon}{key}@{}", ctx.task.begins_at.simple())
}

/// A fresh run, or the rest of one that an earlier entry of this task has begun.
async fn beginning<S: State>(ctx: &Context<S::Event>, key: &str, input: S::Input) -> Result<Beginning<S>, NodeError> {
    let outer = &ctx.task.run;
    let Some(handle) = &outer.store else {
        return Ok(Beginning::Input(input));
    };
    let Some(begun) = handle.store.get(&outer.key.child(&host(ctx, key)), At::Head).await? else {
        return Ok(Beginning::Input(input));
    };
    let asks = begun.run.is_some_and(|mark| mark.status == RunStatus::Asked);
    if !asks {
        return Ok(Beginning::Resume(Answers::None));
    }
    let open: Vec<String> = open_questions(&begun.records).into_iter().map(|(_, q)| q.id).collect();
    let given = outer.journal.answers(&ctx.task.id()).into_iter();
    let given = given.filter_map(|(name, answer)| Some((name.strip_prefix(&prefix(key))?.to_owned(), answer)));
    let answers: Vec<_> = given.filter(|(id, _)| open.contains(id)).collect();
    Ok(Beginning::Resume(if answers.is_empty() {
        Answers::None
    } else {
        Answers::Many(answers)
    }))
}

/// What stands before the ids of inner questions where the host asks them.
fn prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key}:")
    }
}

/// What the host makes of an inner failure: its policy retries it only if the inner node's error was worth it.
fn failed_inside(error: RunError) -> NodeError {
    match error {
        RunError::Checkpoint(error) if error.is_retryable() => NodeError::retryable(error),
        RunError::Node { retryable: true, .. } => NodeError::retryable(error),
        RunError::TimeLimit { .. } => NodeError::time_limit(error),
        RunError::Budget { .. } => NodeError::over_budget(error),
        other => NodeError::terminal(other),
    }
}

/// The inner questions become the host's, each named by its inner id.
fn pass_on<E: Send + 'static>(ctx: &Context<E>, key: &str, questions: Vec<Question>) -> NodeError {
    let task = ctx.task.id();
    for inner in questions {
        let name = format!("{}{}", prefix(key), inner.id);
        let question = Question {
            id: format!("{task}@{}/{name}", ctx.task.step),
            node: format!("{}/{}", ctx.node(), inner.node),
            name,
            ..inner
        };
        ctx.task.run.journal.ask(&task, question);
    }
    NodeError::asked()
}

/// What happens inside leaves with the host's name on it.
struct Hosted<E> {
    outer: Emitter<E>,
    host: Cow<'static, str>,
}

impl<E: Send + 'static> Emit<E> for Hosted<E> {
    fn send(&self, node: Cow<'static, str>, event: E) {
        self.send_inside(Vec::new(), Inside::Custom { node, event });
    }

    fn send_inside(&self, mut hosts: Vec<Cow<'static, str>>, inside: Inside<E>) {
        hosts.push(self.host.clone());
        self.outer.out.send_inside(hosts, inside);
    }

    fn hears(&self) -> Hears {
        self.outer.out.hears()
    }
}

fn hosted<E: Send + 'static>(emitter: Emitter<E>, host: Cow<'static, str>) -> Emitter<E> {
    let gate = Arc::clone(&emitter.gate);
    Emitter {
        out: Arc::new(Hosted { outer: emitter, host }),
        gate,
    }
}
