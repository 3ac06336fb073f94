//! What stands around a node.

use std::borrow::Cow;

use super::{
    GraphBuilder, NodeSpec,
    id::{AnyNode, At},
};
use crate::{id::TenantId, node::Limiter, state::State};

/// What a node is run within.
pub(crate) struct Around<S: State> {
    pub(crate) limits: Vec<Limit<S>>,
}

impl<S: State> Default for Around<S> {
    fn default() -> Self {
        Self { limits: Vec::new() }
    }
}

/// A limiter that a node waits for, and the key it takes there.
pub(crate) struct Limit<S> {
    pub(crate) limiter: Limiter,
    pub(crate) key: Option<KeyOf<S>>,
}

pub(crate) type KeyOf<S> = Box<dyn Fn(&S, &TenantId) -> String + Send + Sync>;

/// The limit that a node's policy sets is one more limiter, of the node alone.
pub(super) fn within_policy<S: State>(mut spec: NodeSpec<S>, name: Cow<'static, str>) -> NodeSpec<S> {
    if let Some(at_once) = spec.policy.concurrency {
        spec.around.limits.push(Limit {
            limiter: Limiter::new(name, at_once),
            key: None,
        });
    }
    spec
}

impl<S: State> GraphBuilder<S> {
    /// Lets the tasks of a node wait until `limiter` lets them in: at most so many at once, over everything that is given
    /// the same limiter. Waiting counts to the run's time limit, not to the node's.
    ///
    /// ```
    /// # use std::num::NonZeroU32;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, Limiter, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { #[state(input)] question: String }
    /// let openai = Limiter::new("openai", const { NonZeroU32::new(8).unwrap() });
    /// let mut g = Graph::<Chat>::builder("chat");
    /// let ask = g.node("ask", |chat: Chat| async move { Ok(Chat::update().question(chat.question)) });
    /// let check = g.node("check", |_: Chat| async { Ok(()) });
    /// g.limit(ask, &openai).limit(check, &openai);
    /// g.edge(START, ask).edge(ask, check).edge(check, END);
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn limit(&mut self, node: impl AnyNode<S>, limiter: &Limiter) -> &mut Self {
        self.push_limit(node, limiter, None)
    }

    /// The same for each key by itself: at most so many at once of each.
    ///
    /// ```
    /// # use std::num::NonZeroU32;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, Limiter, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { #[state(input)] question: String }
    /// let per_tenant = Limiter::new("per tenant", NonZeroU32::MIN);
    /// let mut g = Graph::<Chat>::builder("chat");
    /// let ask = g.node("ask", |chat: Chat| async move { Ok(Chat::update().question(chat.question)) });
    /// g.limit_by(ask, &per_tenant, |_: &Chat, tenant| tenant.clone());
    /// g.edge(START, ask).edge(ask, END);
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn limit_by<K: ToString>(
        &mut self,
        node: impl AnyNode<S>,
        limiter: &Limiter,
        key: impl Fn(&S, &TenantId) -> K + Send + Sync + 'static,
    ) -> &mut Self {
        let key = Box::new(move |state: &S, tenant: &TenantId| key(state, tenant).to_string());
        self.push_limit(node, limiter, Some(key))
    }

    fn push_limit(&mut self, node: impl AnyNode<S>, limiter: &Limiter, key: Option<KeyOf<S>>) -> &mut Self {
        if let Some(around) = self.around(node) {
            around.limits.push(Limit {
                limiter: limiter.clone(),
                key,
            });
        }
        self
    }

    /// What stands around a node of this builder; the id of another is noted as an error.
    fn around(&mut self, node: impl AnyNode<S>) -> Option<&mut Around<S>> {
        match self.at(node.slot().0) {
            At::Node(slot) if slot.builder == self.tag => self.nodes.get_mut(slot.index).map(|spec| &mut spec.around),
            At::Node(_) | At::Start | At::End => None,
        }
    }
}
