//! A graph as a node of another.

use std::{any::type_name, borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use super::{
    Outcome,
    driver::{Left, RunEnd},
    hosting::enter,
};
use crate::{
    graph::Graph,
    node::{Context, Node, NodeError},
    state::{FromState, State},
};

/// What becomes of the state of a graph inside a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubgraphMode {
    /// Each task begins it afresh, on a thread inside its own.
    #[default]
    Fresh,
    /// All tasks of the node on one outer thread share one inner thread: each brings new input, and what is not `per_run`
    /// lasts from one to the next. It needs a checkpointer, and two tasks of one step cannot both use it. An outer thread that
    /// is rerun or forked from an older checkpoint finds the inner one as it is now.
    Accumulating,
    /// Each task begins it afresh and nothing of it is kept: entered again, it runs again from its beginning, with the
    /// effects inside, and it cannot ask.
    Unkept,
}

/// A graph as a node: `I` starts it, `O` is read from its last state. Made by [`Graph::as_node`].
///
/// Each task of its host begins it afresh, on a thread inside the host's, unless its [mode](SubgraphMode) says otherwise.
/// Entered again after a crash or an answer, it goes on where it was. What its nodes emit becomes what the host emits, its
/// questions become the host's, and a cancellation of the outer run reaches it.
pub struct Subgraph<S: State, I, O> {
    graph: Graph<S>,
    mode: SubgraphMode,
    ends: PhantomData<fn(I) -> O>,
}

impl<S: State, I, O> Subgraph<S, I, O> {
    pub(crate) const fn new(graph: Graph<S>) -> Self {
        Self {
            graph,
            mode: SubgraphMode::Fresh,
            ends: PhantomData,
        }
    }

    /// Lets its state last from task to task: [`SubgraphMode::Accumulating`].
    #[must_use]
    pub fn accumulating(self) -> Self {
        self.mode(SubgraphMode::Accumulating)
    }

    /// Keeps nothing of it: [`SubgraphMode::Unkept`].
    #[must_use]
    pub fn unkept(self) -> Self {
        self.mode(SubgraphMode::Unkept)
    }

    /// Says what becomes of its state.
    #[must_use]
    pub fn mode(mut self, mode: SubgraphMode) -> Self {
        self.mode = mode;
        self
    }

    /// Takes what a node inside leaves by [`Context::leave`]: `adopt` makes the host's output of it, or of what the graph has
    /// ended with. As a [`router`](crate::GraphBuilder::router), the host so goes another way when it was left.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Command, Context, Ended, FromState, Graph, Route, START, END, State, to};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Desk { #[state(input)] question: String, answer: Option<String> }
    /// # impl FromState<Desk> for DeskInput {
    /// #     fn from_state(desk: &Arc<Desk>) -> Self { DeskInput { question: desk.question.clone() } }
    /// # }
    /// #[derive(Route, Clone, Copy)]
    /// enum Next { Done, HandOver }
    ///
    /// let mut inner = Graph::<Desk>::builder("specialist");
    /// let look = inner.node("look", |desk: Arc<Desk>, ctx: Context<()>| async move {
    ///     if desk.question.contains("invoice") {
    ///         return Err(ctx.leave(&"accounting"));
    ///     }
    ///     Ok(Desk::update().answer("42".to_owned()))
    /// });
    /// inner.edge(START, look).edge(look, END);
    ///
    /// let mut g = Graph::<Desk>::builder("desk");
    /// let specialist = inner.build()?.as_node::<DeskInput, Arc<Desk>>();
    /// let ask = g.router("ask", specialist.or_left(|end: Ended<Arc<Desk>, String>| match end {
    ///     Ended::Done(desk) => Command { update: Desk::update().answer(desk.answer.clone()), goto: Next::Done },
    ///     Ended::Left(to) => Command { update: Desk::update().answer(format!("ask {to}")), goto: Next::HandOver },
    /// }));
    /// let hand_over = g.node("hand_over", |_: Arc<Desk>| async { Ok(()) });
    /// g.edge(START, ask).edge(hand_over, END);
    /// g.routes(ask, |next| match next { Next::Done => to(END), Next::HandOver => to(hand_over) });
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn or_left<T, C>(self, adopt: impl Fn(Ended<O, T>) -> C + Send + Sync + 'static) -> OrLeft<S, I, O, T, C> {
        OrLeft {
            subgraph: self,
            adopt: Box::new(adopt),
        }
    }
}

impl<S: State, I, O> fmt::Debug for Subgraph<S, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subgraph")
            .field("graph", &self.graph)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: State, I: Into<S::Input> + Send + 'static, O: FromState<S>> Node for Subgraph<S, I, O> {
    type Input = I;
    type Output = O;
    type Event = S::Event;

    async fn run(&self, input: I, ctx: Context<S::Event>) -> Result<O, NodeError> {
        let end = enter(&self.graph, &ctx, "", input.into(), self.mode).await?;
        Ok(O::from_state(&Arc::new(done(&self.graph, end)?)))
    }
}

/// How a graph inside a node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended<O, T> {
    /// It has come to its own end.
    Done(O),
    /// One of its nodes has left it.
    Left(T),
}

/// A graph as a node that may be left by the nodes inside. Made by [`Subgraph::or_left`].
pub struct OrLeft<S: State, I, O, T, C> {
    subgraph: Subgraph<S, I, O>,
    adopt: Box<dyn Fn(Ended<O, T>) -> C + Send + Sync>,
}

impl<S: State, I, O, T, C> fmt::Debug for OrLeft<S, I, O, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrLeft")
            .field("subgraph", &self.subgraph)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<S, I, O, T, C> Node for OrLeft<S, I, O, T, C>
where
    S: State,
    I: Into<S::Input> + Send + 'static,
    O: FromState<S>,
    T: DeserializeOwned + 'static,
    C: Send + 'static,
{
    type Input = I;
    type Output = C;
    type Event = S::Event;

    async fn run(&self, input: I, ctx: Context<S::Event>) -> Result<C, NodeError> {
        let Subgraph { graph, mode, .. } = &self.subgraph;
        let end = enter(graph, &ctx, "", input.into(), *mode).await?;
        Ok((self.adopt)(match end {
            RunEnd::Left(Left { leave, .. }) if leave.goto.is_empty() => {
                Ended::Left(serde_json::from_value(leave.update).map_err(|error| {
                    NodeError::terminal(SubgraphError::UnexpectedLeave {
                        graph: name(graph),
                        expected: type_name::<T>(),
                        message: error.to_string(),
                    })
                })?)
            }
            RunEnd::Left(Left { leave, .. }) => {
                return Err(NodeError::terminal(SubgraphError::UnexpectedLeave {
                    graph: name(graph),
                    expected: type_name::<T>(),
                    message: format!("it leads to {:?} by name", leave.goto),
                }));
            }
            end @ RunEnd::Outcome(_) => Ended::Done(O::from_state(&Arc::new(done(graph, end)?))),
        }))
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
        self.call_as(SubgraphMode::Fresh, graph, key, input).await
    }

    /// The same in another mode. In [`SubgraphMode::Accumulating`] all tasks of this node share one inner thread for each
    /// key.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`SubgraphError`].
    pub async fn call_as<T: State>(
        &self,
        mode: SubgraphMode,
        graph: &Graph<T>,
        key: &str,
        input: T::Input,
    ) -> Result<T, NodeError>
    where
        T::Event: Into<E>,
    {
        let ctx = self.clone().narrow();
        done(graph, enter(graph, &ctx, key, input, mode).await?)
    }
}

/// What the mode of a graph inside a node does not allow, or its host does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubgraphError {
    /// A node asks where nothing is kept.
    #[error(
        "question `{question}` of graph `{graph}` cannot be kept: give the graph a checkpointer, and do not host it as `unkept`"
    )]
    QuestionNotKept {
        /// The question's name.
        question: String,
        /// The graph whose node asks.
        graph: Cow<'static, str>,
    },
    /// A state that should last has no place to.
    #[error("graph `{graph}` cannot accumulate where nothing is kept: give the outermost graph a checkpointer")]
    NoCheckpointer {
        /// The graph inside.
        graph: Cow<'static, str>,
    },
    /// Two tasks of one step use one accumulating graph.
    #[error(
        "two tasks of one step of `{node}` use the accumulating graph `{graph}`: run them in steps of their own, or host it fresh"
    )]
    SharedInStep {
        /// The graph inside.
        graph: Cow<'static, str>,
        /// The host.
        node: Cow<'static, str>,
    },
    /// What was recorded of it cannot be told from what other tasks have left, or was not kept.
    #[error(
        "graph `{graph}` is hosted as accumulating or unkept, so that its nodes cannot be replayed: replay without bodies"
    )]
    NotReplayed {
        /// The graph inside.
        graph: Cow<'static, str>,
    },
    /// A node has left something else than its graph's host takes.
    #[error(
        "what a node of graph `{graph}` has left is no `{expected}`: {message}; leave what the host's `or_left` takes"
    )]
    UnexpectedLeave {
        /// The graph inside.
        graph: Cow<'static, str>,
        /// What the host takes.
        expected: &'static str,
        /// Why it does not fit.
        message: String,
    },
}

impl SubgraphError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::QuestionNotKept { .. } => "subgraph::question_not_kept",
            Self::NoCheckpointer { .. } => "subgraph::no_checkpointer",
            Self::SharedInStep { .. } => "subgraph::shared_in_step",
            Self::NotReplayed { .. } => "subgraph::not_replayed",
            Self::UnexpectedLeave { .. } => "subgraph::unexpected_leave",
        }
    }
}

/// A graph's name, for messages.
pub(super) fn name<S: State>(graph: &Graph<S>) -> Cow<'static, str> {
    graph.parts.topology.graph.clone()
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
        RunEnd::Left(left) => Err(NodeError::left(*left.leave)),
    }
}
