//! How the tasks of a graph fail, and how long its runs and steps may take: the verbs for what goes wrong.

use std::{borrow::Cow, marker::PhantomData, sync::Arc, time::Duration};

use super::{
    builder::GraphBuilder,
    id::{HandlerId, HandlerRouterId, Handles, MayFail},
    parts::{Call, Output},
    running::Running,
    topology::Kind,
};
use crate::{
    node::{Failed, IntoNode, LazyContext, NodeError, Policy},
    route::{Command, Route},
    state::{FromState, State},
};

/// What becomes of the tasks that still run when one of their step has failed for good. Results that are there are never
/// lost: what has finished does not run again when the thread is resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// They go on to their own end, and their results are kept.
    #[default]
    LetFinish,
    /// They are cut off, but for outside effects of class other that have begun. They are recorded as cancelled, and run
    /// again when the thread is resumed.
    CancelSiblings,
}

/// What a graph says about its steps and runs as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    pub(crate) deadline: Option<Duration>,
    pub(crate) step_timeout: Option<Duration>,
    pub(crate) on_failure: OnFailure,
}

impl Rules {
    /// Whether a step may be cut off while its run goes on.
    pub(crate) fn cuts(self) -> bool {
        self.step_timeout.is_some() || self.on_failure != OnFailure::LetFinish
    }
}

impl<S: State> GraphBuilder<S> {
    /// Says how every node is run whose own policy leaves it open. Each part of a policy counts by itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use stepgraph::{GraphBuilder, NodeId, Policy, State};
    /// # fn declare<S: State>(g: &mut GraphBuilder<S>, slow: NodeId<S>) {
    /// g.defaults(Policy::new().timeout(Duration::from_secs(10)));
    /// g.policy(slow, Policy::new().timeout(Duration::from_secs(60)));
    /// # }
    /// ```
    pub const fn defaults(&mut self, policy: Policy) -> &mut Self {
        self.defaults = policy;
        self
    }

    /// Ends each run with [`RunError::TimeLimit`](crate::RunError::TimeLimit) after this time, unless the run has a
    /// `time_limit` of its own. As a node of another graph, the host fails with it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use stepgraph::{GraphBuilder, State};
    /// # fn declare<S: State>(g: &mut GraphBuilder<S>) {
    /// g.deadline(Duration::from_secs(28));
    /// # }
    /// ```
    pub const fn deadline(&mut self, limit: Duration) -> &mut Self {
        self.rules.deadline = Some(limit);
        self
    }

    /// Ends a run with [`RunError::StepTimeout`](crate::RunError::StepTimeout) if one of its steps takes longer than this.
    /// What still runs is cut off, what has finished is kept.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use stepgraph::{GraphBuilder, State};
    /// # fn declare<S: State>(g: &mut GraphBuilder<S>) {
    /// g.step_timeout(Duration::from_secs(15));
    /// # }
    /// ```
    pub const fn step_timeout(&mut self, limit: Duration) -> &mut Self {
        self.rules.step_timeout = Some(limit);
        self
    }

    /// Says what becomes of a step's other tasks when one fails for good.
    ///
    /// ```
    /// # use stepgraph::{GraphBuilder, OnFailure, State};
    /// # fn declare<S: State>(g: &mut GraphBuilder<S>) {
    /// g.on_failure(OnFailure::CancelSiblings);
    /// # }
    /// ```
    pub const fn on_failure(&mut self, policy: OnFailure) -> &mut Self {
        self.rules.on_failure = policy;
        self
    }

    /// Adds a handler: a node that runs, in the same step, for a task that has failed for good, and gives an update in its
    /// stead. Its ways on are followed instead of the failed node's. [`on_error`](Self::on_error) says for which nodes.
    ///
    /// It is given the view of the state that the failed task had, and the failure. The failure is durable before the
    /// handler begins, so a crash goes on in the handler. It has a policy of its own and may ask, emit and record effects;
    /// if it fails, the run fails with [`RunError::Handler`](crate::RunError::Handler), and resuming goes on in the handler.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use serde::{Deserialize, Serialize};
    /// use stepgraph::{END, Failed, Graph, NodeError, START, State};
    ///
    /// #[derive(State, Clone, Serialize, Deserialize)]
    /// struct Chat { answer: Option<String> }
    ///
    /// let mut g = Graph::<Chat>::builder("chat");
    /// let generate = g.node("generate", |_: Arc<Chat>| async {
    ///     Err::<ChatUpdate, _>(NodeError::terminal("the model is down"))
    /// });
    /// let recover = g.handler("recover", |failed: Failed<Arc<Chat>>| async move {
    ///     Ok(Chat::update().answer(format!("sorry: {}", failed.failure().message)))
    /// });
    /// g.edge(START, generate).edge(generate, END);
    /// g.on_error(generate, recover).edge(recover, END);
    /// # let graph = g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    #[must_use = "a handler is given its nodes by `on_error`"]
    pub fn handler<M, N, I>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> HandlerId<S>
    where
        N: IntoNode<S, M, Input = Failed<I>>,
        N::Output: Into<S::Update>,
        I: FromState<S>,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let ctx = ctx.make();
            let again = || ctx.clone();
            let running = ctx.task.caught.clone().map(|caught| {
                let failed = Failed::new(I::from_state(state), caught);
                N::enter(&node, failed, LazyContext(&again))
            });
            Running::of(async move {
                let running = running.ok_or_else(without_failure)?;
                Ok(Output::of(running.await?.into()))
            })
        });
        HandlerId(self.push(name.into(), Kind::Handler, call, None), PhantomData)
    }

    /// Adds a handler that also chooses where to go on, among routes of its own.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Command, END, Failed, Graph, NodeError, NodeId, GraphBuilder, Route, START, State, to};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { answer: Option<String> }
    /// #[derive(Route, Clone, Copy)]
    /// enum After { Ask, GiveUp }
    ///
    /// # fn declare(g: &mut GraphBuilder<Chat>, generate: NodeId<Chat>, ask: NodeId<Chat>) {
    /// let recover = g.handler_router("recover", |failed: Failed<Arc<Chat>>| async move {
    ///     let goto = if failed.failure().retryable { After::Ask } else { After::GiveUp };
    ///     Ok(Command { update: Chat::update(), goto })
    /// });
    /// g.on_error(generate, recover).routes(recover, |after| match after {
    ///     After::Ask => to(ask),
    ///     After::GiveUp => to(END),
    /// });
    /// # }
    /// ```
    #[must_use = "a handler is given its nodes by `on_error`"]
    pub fn handler_router<M, N, I, U, R>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        node: N,
    ) -> HandlerRouterId<S, R>
    where
        N: IntoNode<S, M, Input = Failed<I>, Output = Command<U, R>>,
        I: FromState<S>,
        U: Into<S::Update> + Send + 'static,
        R: Route,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let ctx = ctx.make();
            let again = || ctx.clone();
            let running = ctx.task.caught.clone().map(|caught| {
                let failed = Failed::new(I::from_state(state), caught);
                N::enter(&node, failed, LazyContext(&again))
            });
            Running::of(async move {
                let running = running.ok_or_else(without_failure)?;
                let Command { update, goto } = running.await?;
                Ok(Output::routed(update.into(), goto.index()))
            })
        });
        HandlerRouterId(self.push(name.into(), Kind::HandlerRouter, call, None), PhantomData)
    }

    /// Hands the failures of a node, router or worker to a handler, once its attempts are exhausted: errors, panics and
    /// timeouts; not questions, cancellations and the limits of the step or run. One handler may serve many nodes.
    pub fn on_error(&mut self, of: impl MayFail<S>, handler: impl Handles<S>) -> &mut Self {
        let (of, handler) = (self.at(of.failing().0), self.at(handler.handling().0));
        self.declared.on_error(of, handler);
        self
    }

    /// Hands the failures of every node, router and worker to a handler for which [`on_error`](Self::on_error) names no
    /// other. Handlers themselves have none: their failure fails the run.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{END, Failed, GraphBuilder, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { note: Option<String> }
    /// # fn declare(g: &mut GraphBuilder<Chat>) {
    /// let apologise = g.handler("apologise", |failed: Failed<Arc<Chat>>| async move {
    ///     Ok(Chat::update().note(format!("{} failed: {}", failed.node(), failed.failure())))
    /// });
    /// g.on_any_error(apologise).edge(apologise, END);
    /// # }
    /// ```
    pub fn on_any_error(&mut self, handler: impl Handles<S>) -> &mut Self {
        let handler = self.at(handler.handling().0);
        self.declared.on_any_error(handler);
        self
    }
}

pub(crate) fn without_failure() -> NodeError {
    NodeError::terminal("a handler was entered without a failure: it runs only for nodes that `on_error` names")
}
