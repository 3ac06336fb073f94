//! What stands around a node.

use std::{any::Any, borrow::Cow, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    AlsoId, GraphBuilder, NodeId, NodeSpec, Payload, RouterId, WorkerId,
    id::{AnyNode, At},
};
use crate::{
    cache::{MemoryCache, NodeCache},
    id::TenantId,
    node::Limiter,
    state::State,
};

/// What a node is run within.
pub(crate) struct Around<S: State> {
    pub(crate) limits: Vec<Limit<S>>,
    pub(crate) cache: Option<CachePolicy<S>>,
}

impl<S: State> Default for Around<S> {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            cache: None,
        }
    }
}

/// A limiter that a node waits for, and the key it takes there.
pub(crate) struct Limit<S> {
    pub(crate) limiter: Limiter,
    pub(crate) key: Option<KeyOf<S>>,
}

pub(crate) type KeyOf<S> = Box<dyn Fn(&S, &TenantId) -> String + Send + Sync>;

/// How a node's outputs are kept.
pub(crate) struct CachePolicy<S> {
    pub(crate) ttl: Duration,
    /// The bytes of the author's key; `None` if they cannot be made.
    pub(crate) key: KeyBytes<S>,
}

pub(crate) type KeyBytes<S> = Box<dyn Fn(&S, Option<&Payload>) -> Option<Vec<u8>> + Send + Sync>;

/// What a node reads, and its cache key is made of: the state, or for a worker its item.
#[diagnostic::on_unimplemented(
    message = "the outputs of `{Self}` cannot be kept in the cache of a `{S}` graph",
    note = "a cache key is made of what a node, a router or a worker reads; a handler is also given a failure, which is no part of the key"
)]
pub trait Reads<S>: AnyNode<S> {
    /// The state or the item.
    type Reads: 'static;

    #[doc(hidden)]
    fn reads<'a>(state: &'a S, payload: Option<&'a Arc<dyn Any + Send + Sync>>) -> Option<&'a Self::Reads>;
}

impl<S: 'static> Reads<S> for NodeId<S> {
    type Reads = S;

    fn reads<'a>(state: &'a S, _: Option<&'a Payload>) -> Option<&'a S> {
        Some(state)
    }
}

impl<S: 'static, R> Reads<S> for RouterId<S, R> {
    type Reads = S;

    fn reads<'a>(state: &'a S, _: Option<&'a Payload>) -> Option<&'a S> {
        Some(state)
    }
}

impl<S: 'static, R> Reads<S> for AlsoId<S, R> {
    type Reads = S;

    fn reads<'a>(state: &'a S, _: Option<&'a Payload>) -> Option<&'a S> {
        Some(state)
    }
}

impl<S, I: 'static> Reads<S> for WorkerId<S, I> {
    type Reads = I;

    fn reads<'a>(_: &'a S, payload: Option<&'a Payload>) -> Option<&'a I> {
        payload.and_then(|payload| payload.downcast_ref())
    }
}

/// A cache for a graph whose nodes are cached.
pub(super) fn own_cache<S: State>(nodes: &[NodeSpec<S>]) -> Option<Arc<dyn NodeCache>> {
    let cached = nodes.iter().any(|node| node.around.cache.is_some());
    cached.then(|| Arc::new(MemoryCache::default()) as Arc<dyn NodeCache>)
}

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

    /// Takes what a node gave before, instead of running it, for as long as `ttl`, whenever `key` is the same: make it of all
    /// that the node's output depends on, of the state or, for a worker, of its item. Another tenant or another version of
    /// the graph never finds it; what the node's code says is no part of the version, so put a number into the key when
    /// that changes. Errors and questions are not kept, nor is what followed from an answer.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { #[state(input)] question: String }
    /// let mut g = Graph::<Chat>::builder("chat");
    /// let embed = g.node("embed", |chat: Chat| async move { Ok(Chat::update().question(chat.question)) });
    /// g.cache(embed, Duration::from_secs(600), |chat| ("model-3", chat.question.clone()));
    /// g.edge(START, embed).edge(embed, END);
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn cache<N: Reads<S>, K: Serialize>(
        &mut self,
        node: N,
        ttl: Duration,
        key: impl Fn(&N::Reads) -> K + Send + Sync + 'static,
    ) -> &mut Self {
        let bytes = move |state: &S, payload: Option<&Payload>| {
            let key = N::reads(state, payload).map(&key)?;
            rmp_serde::to_vec_named(&key).ok()
        };
        if let Some(around) = self.around(node) {
            around.cache = Some(CachePolicy {
                ttl,
                key: Box::new(bytes),
            });
        }
        self
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
