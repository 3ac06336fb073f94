//! A graph as a node of another.

use std::{fmt, marker::PhantomData, sync::Arc};

use async_trait::async_trait;

use super::{
    Answers, Beginning, Cancel, OnBusy, Options, Outcome, Run,
    error::RunError,
    event::Sink,
    open::{Opened, open_with},
};
use crate::{
    ask::Question,
    checkpoint::{At, RunStatus},
    graph::Graph,
    node::{Context, Emit, Emitter, InFlight, Node, NodeError, StoreHandle},
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

    fn inner(&self, ctx: &Context<S::Event>, beginning: Beginning<S>) -> Run<S> {
        let outer = &ctx.task.run;
        let mut graph = self.graph.clone();
        graph.store = outer.store.as_ref().map(|handle| Arc::clone(&handle.store));
        graph.clock = Arc::clone(&outer.clock);
        let options = Options {
            run: Some(outer.run),
            cancel: Cancel(outer.cancel.clone()),
            reader_gone: outer.reader_gone.clone(),
            provided: outer.provided.clone(),
            time_limit: ctx.time_left(),
            step_limit: outer.step_limit,
            on_busy: OnBusy::Reject,
            ..Options::default()
        };
        Run {
            graph,
            key: outer.key.child(&host(ctx)),
            beginning,
            options,
        }
    }
}

/// Name of the host's task in the inner thread's namespace: different for every step, the same for every entry.
fn host<E: Send + 'static>(ctx: &Context<E>) -> String {
    let head = ctx.task.run.store.as_ref().and_then(StoreHandle::head);
    match head {
        Some(head) => format!("{}@{}", ctx.task.id(), head.0),
        // Nothing is kept, but ids that inner nodes draw are made of the name.
        None => format!("{}@{}", ctx.task.id(), ctx.task.step),
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
        let beginning = self.beginning(input, &ctx).await?;
        let run = self.inner(&ctx, beginning);
        if let Some(error) = run.missing() {
            return Err(NodeError::terminal(error));
        }
        let sink = ctx
            .emitter
            .clone()
            .map_or(Sink::Nobody, |emitter| Sink::Host(hosted(emitter, ctx.task.node)));
        // A cancellation reaches the inner run by itself; the host waits until it has kept what it has.
        let _in_flight = InFlight::enter(&ctx.task.run);
        let outcome = match open_with(run, sink).await.map_err(failed_inside)? {
            Opened::Ended(outcome) => outcome,
            Opened::Open(driver) => Box::pin(driver.drive()).await.map_err(failed_inside)?,
        };
        match outcome {
            Outcome::Done(state) => Ok(O::from_state(&Arc::new(state))),
            Outcome::Asked(questions) => Err(pass_on(&ctx, questions)),
            Outcome::Cancelled => Err(NodeError::cancelled()),
            Outcome::Stalled { waiting, .. } => Err(NodeError::terminal(format!(
                "graph `{}` stalled: {waiting:?}",
                self.graph.name()
            ))),
        }
    }
}

impl<S: State, I: Into<S::Input> + Send + 'static, O> Subgraph<S, I, O> {
    /// A fresh run, or the rest of one that an earlier entry of this task has begun.
    async fn beginning(&self, input: I, ctx: &Context<S::Event>) -> Result<Beginning<S>, NodeError> {
        let outer = &ctx.task.run;
        let Some(handle) = &outer.store else {
            return Ok(Beginning::Input(input.into()));
        };
        let begun = handle.store.get(&outer.key.child(&host(ctx)), At::Head).await?;
        let Some(begun) = begun else {
            return Ok(Beginning::Input(input.into()));
        };
        let asks = begun.run.is_some_and(|mark| mark.status == RunStatus::Asked);
        let open: Vec<String> = if asks {
            super::open::open_questions(&begun.records)
                .into_iter()
                .map(|(_, q)| q.id)
                .collect()
        } else {
            Vec::new()
        };
        let answers = outer
            .journal
            .answers(&ctx.task.id())
            .into_iter()
            .filter(|(name, _)| open.contains(name))
            .collect::<Vec<_>>();
        Ok(Beginning::Resume(if answers.is_empty() {
            Answers::None
        } else {
            Answers::Many(answers)
        }))
    }
}

/// What the host makes of an inner failure: its policy retries it only if the inner node's error was worth it.
fn failed_inside(error: RunError) -> NodeError {
    match error {
        RunError::Checkpoint(error) if error.is_retryable() => NodeError::retryable(error),
        RunError::Node { retryable: true, .. } => NodeError::retryable(error),
        RunError::TimeLimit { .. } => NodeError::time_limit(error),
        other => NodeError::terminal(other),
    }
}

/// The inner questions become the host's, each named by its inner id.
fn pass_on<E: Send + 'static>(ctx: &Context<E>, questions: Vec<Question>) -> NodeError {
    let task = ctx.task.id();
    for inner in questions {
        let question = Question {
            id: format!("{task}@{}/{}", ctx.task.step, inner.id),
            node: format!("{}/{}", ctx.node(), inner.node),
            name: inner.id.clone(),
            ..inner
        };
        ctx.task.run.journal.ask(&task, question);
    }
    NodeError::asked()
}

/// What inner nodes emit leaves under the host's name.
struct Hosted<E> {
    outer: Emitter<E>,
    host: usize,
}

impl<E: Send + 'static> Emit<E> for Hosted<E> {
    fn send(&self, _inner: usize, event: E) {
        self.outer.out.send(self.host, event);
    }
}

fn hosted<E: Send + 'static>(emitter: Emitter<E>, host: usize) -> Emitter<E> {
    let gate = Arc::clone(&emitter.gate);
    Emitter {
        out: Arc::new(Hosted { outer: emitter, host }),
        gate,
    }
}
