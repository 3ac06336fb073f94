//! What nodes say that they write.

use super::{
    GraphBuilder,
    id::{AnyNode, Slot},
    parts::Parts,
};
use crate::state::{State, Update};

impl<S: State> GraphBuilder<S> {
    /// Says which fields a node, router, worker or handler writes: these and no others. What is said twice adds up, and
    /// with no field it writes nothing. A run in which it writes another fails at the end of that step, and nothing of
    /// the step is merged. A handler is held to what it says itself, not to what the failed node says. What a
    /// [`FanOutPolicy`](crate::FanOutPolicy) makes of a failed item counts as written by its worker; an edit of a thread
    /// as this node is not held to it. Nodes of which nothing is said write what they like.
    ///
    /// With this [`Graph::warnings`](crate::Graph::warnings) tells of two nodes that may run in the same step and both write
    /// a field that takes one write a step:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { answer: Option<String> }
    /// let mut g = Graph::<Chat>::builder("chat");
    /// for name in ["short", "long"] {
    ///     let node = g.node(name, move |_: Arc<Chat>| async move { Ok(Chat::update().answer(name.to_owned())) });
    ///     g.writes(node, ["answer"]).edge(START, node).edge(node, END);
    /// }
    /// let graph = g.build()?;
    /// assert_eq!(graph.warnings()[0].code(), "graph::parallel_writers");
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn writes<F: AsRef<str>>(&mut self, node: impl AnyNode<S>, fields: impl IntoIterator<Item = F>) -> &mut Self {
        if let Some(slot) = self.own(node.slot()) {
            self.set_writes(slot, fields);
        }
        self
    }

    pub(crate) fn set_writes<F: AsRef<str>>(&mut self, slot: Slot, fields: impl IntoIterator<Item = F>) {
        let known = S::fields(&self.shape);
        let Some(spec) = self.nodes.get_mut(slot.index) else {
            return;
        };
        let writes = spec.writes.get_or_insert_default();
        for field in fields {
            let name = field.as_ref();
            if let Some(at) = known.iter().position(|known| known.name == name) {
                writes.insert(at);
            } else {
                self.declared.unknown_fields.push((slot.index, name.to_owned()));
            }
        }
    }
}

impl<S: State> Parts<S> {
    /// The first field that an update of a node writes although the node has said that it does not.
    pub(crate) fn undeclared(&self, node: usize, update: &S::Update) -> Option<usize> {
        let declared = self.nodes.get(node)?.writes.as_ref()?;
        let touched = update.touched(S::fields(&self.shape));
        touched.iter().find(|field| !declared.contains(*field))
    }
}
