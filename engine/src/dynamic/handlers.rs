//! What takes over in a dynamic graph: handlers of failures, and the node for a spent budget.

use std::future::Future;

use serde_json::Value;

use super::{DynamicBuilder, Reply, TaskInput, builder::task_input};
use crate::{
    graph::{At, BuildError, Call, Kind, Running, without_failure},
    node::{Context, Failed, NodeError},
};

/// Who takes over from whom, by names.
#[derive(Debug, Default)]
pub(super) struct Handling {
    of_node: Vec<(String, String)>,
    of_any: Vec<String>,
    budget: Option<String>,
}

impl DynamicBuilder {
    /// Adds a handler: it is entered with the failure of a node that [`on_error`](Self::on_error) gives it, and what it
    /// gives back stands for that node's. Its own ways are followed.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use stepgraph::dynamic::{Channels, DynamicBuilder, JsonUpdate, Merge};
    /// # let channels = Channels::new([("note", Merge::Last)])?;
    /// let mut g = DynamicBuilder::new("chat", channels);
    /// g.node("generate", |_, _| async { Err(stepgraph::NodeError::terminal("the model is away")) });
    /// g.handler("apologise", |failed, _ctx| async move {
    ///     let note = format!("{} failed: {}", failed.node(), failed.failure());
    ///     Ok(JsonUpdate::new().set("note", json!(note)).into())
    /// });
    /// g.on_error("generate", "apologise");
    /// g.edge("START", "generate").edge("generate", "END").edge("apologise", "END");
    /// let graph = g.build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handler<F, Fut>(&mut self, name: impl Into<String>, node: F) -> &mut Self
    where
        F: Fn(Failed<TaskInput>, Context<Value>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, NodeError>> + Send + 'static,
    {
        let output = self.output();
        let call: Call<_> = Box::new(move |state, _, ctx| {
            let ctx = ctx.make();
            let failed = ctx.task.caught.clone().map(|caught| {
                let input = task_input(state, caught.payload.as_ref());
                Failed::new(input, caught)
            });
            let running = failed.map(|failed| node(failed, ctx));
            let output = output.clone();
            Running::of(async move {
                let reply = running.ok_or_else(without_failure)?.await?;
                output.of(reply)
            })
        });
        self.push(name.into(), Kind::Handler, call)
    }

    /// Hands the failures of a node to a handler once its attempts are exhausted, as
    /// [`GraphBuilder::on_error`](crate::GraphBuilder::on_error) does.
    pub fn on_error(&mut self, node: impl Into<String>, handler: impl Into<String>) -> &mut Self {
        self.handling.of_node.push((node.into(), handler.into()));
        self
    }

    /// Hands the failures of every other node to a handler. Handlers themselves have none.
    pub fn on_any_error(&mut self, handler: impl Into<String>) -> &mut Self {
        self.handling.of_any.push(handler.into());
        self
    }

    /// Names the node that a run goes to when its budget is spent, as
    /// [`GraphBuilder::on_budget`](crate::GraphBuilder::on_budget) does.
    pub fn on_budget(&mut self, node: impl Into<String>) -> &mut Self {
        self.handling.budget = Some(node.into());
        self
    }

    /// Finds the names.
    pub(super) fn wire_handling(&mut self) {
        let handling = std::mem::take(&mut self.handling);
        for (node, handler) in handling.of_node {
            if let (Some(node), Some(handler)) = (self.known(&node), self.handler_named(handler)) {
                self.inner.declared.on_error(node, handler);
            }
        }
        for handler in handling.of_any {
            if let Some(handler) = self.handler_named(handler) {
                self.inner.declared.on_any_error(handler);
            }
        }
        if let Some(At::Node(slot)) = handling.budget.and_then(|name| self.known(&name)) {
            self.inner.declared.on_budget = Some(slot.index);
        }
    }

    fn known(&mut self, name: &str) -> Option<At> {
        let slot = self.slots.get(name).copied();
        if slot.is_none() {
            self.problems.push(BuildError::UnknownNode(name.to_owned()));
        }
        slot.map(At::Node)
    }

    /// A node that was added as a handler; no other is entered with a failure.
    fn handler_named(&mut self, name: String) -> Option<At> {
        let at = self.known(&name)?;
        let At::Node(slot) = at else { return None };
        let (_, kind) = self.inner.declared.nodes.get(slot.index)?;
        if kind.is_handler() {
            return Some(at);
        }
        self.problems.push(BuildError::NotAHandler(name));
        None
    }
}
