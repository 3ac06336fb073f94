//! Replaying: a recorded thread once more through today's graph, without writing or calling anything.

mod bodies;
mod compare;
mod difference;
mod inside;
mod notes;
mod walk;

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
};

pub use self::difference::{Difference, Divergence};
pub(super) use self::inside::inside;
pub(crate) use self::notes::Notes;
use self::walk::Walk;
use super::error::RunError;
use crate::{checkpoint::At, graph::Graph, id::ThreadKey, node::TypeMap, state::State};

/// How many checkpoints a replay goes through unless told otherwise, the newest of them.
pub const REPLAY_CHECKPOINTS_DEFAULT: u32 = 100_000;

/// What a replay has come to.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Replayed {
    /// How many checkpoints came out as recorded.
    pub checkpoints: u64,
    /// How many nodes were entered, those of graphs inside included.
    pub bodies: u64,
    /// The first place where today's graph comes out otherwise.
    pub divergence: Option<Divergence>,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.divergence {
            None => write!(f, "{} checkpoints came out as recorded", self.checkpoints),
            Some(divergence) => write!(f, "after {} checkpoints, {divergence}", self.checkpoints),
        }
    }
}

/// A replay about to begin: await it, or set its options first. Made by [`Graph::replay`].
#[must_use = "a replay begins when it is awaited"]
pub struct Replay<S: State> {
    graph: Graph<S>,
    key: ThreadKey,
    at: At,
    bodies: bool,
    checkpoints_max: u32,
    provided: TypeMap,
}

impl<S: State> fmt::Debug for Replay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("graph", &self.graph)
            .field("thread", &self.key)
            .finish_non_exhaustive()
    }
}

impl<S: State> Graph<S> {
    /// Goes once more through a thread that was [recorded](Self::recording), with today's graph and the recorded outputs of
    /// its nodes: reducers, branches, routes, fan-outs and joins run, and after each step the state, byte for byte, and the
    /// tasks that follow are compared with the record. Nothing is written and no node is entered, unless
    /// [`bodies`](Replay::bodies) says so. It takes the branch that leads to the thread's head, over all its runs, questions,
    /// edits and forks.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{END, Graph, Memory, Recording, START, State, Sum, TenantId, ThreadId, ThreadKey};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input, reducer = Sum)] n: u64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut g = Graph::<Count>::builder("count");
    /// # let add = g.node("add", |_: Count| async { Ok(Count::update().n(1_u64)) });
    /// # g.edge(START, add).edge(add, END);
    /// # let graph = g.build()?;
    /// # let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    /// let graph = graph.checkpointer(Memory::new()).recording(Recording::Outputs);
    /// graph.run(&thread, CountInput { n: 1 }).await?;
    /// let replayed = graph.replay(&thread).await?;
    /// assert!(replayed.divergence.is_none(), "{replayed}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RunError::NotRecorded`] where the record does not say enough, [`RunError::UnknownThread`], or what the store says.
    /// That today's graph comes out otherwise is no error: it is [`Replayed::divergence`].
    pub fn replay(&self, thread: &ThreadKey) -> Replay<S> {
        Replay {
            graph: self.clone(),
            key: thread.clone(),
            at: At::Head,
            bodies: false,
            checkpoints_max: REPLAY_CHECKPOINTS_DEFAULT,
            provided: TypeMap::default(),
        }
    }
}

impl<S: State> Replay<S> {
    /// Goes only as far as this checkpoint, over those that led to it.
    pub const fn at(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    /// Enters the nodes too, those of graphs inside included. What they ask of services by
    /// [`Context::recorded`](crate::Context::recorded) is answered from the record, their effects from the journal, their
    /// questions by the answers that were given; time, ids and random numbers are as they were. It needs a thread that was
    /// recorded with [`Recording::Calls`](crate::Recording::Calls). What a node does past its context happens once more.
    pub const fn bodies(mut self) -> Self {
        self.bodies = true;
        self
    }

    /// Goes through the newest so many checkpoints only, [`REPLAY_CHECKPOINTS_DEFAULT`] otherwise.
    pub const fn newest(mut self, checkpoints: u32) -> Self {
        self.checkpoints_max = checkpoints;
        self
    }

    /// Gives nodes a value by its type, as [`Run::provide`](crate::Run::provide) does.
    pub fn provide<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.provided.insert(value);
        self
    }

    async fn carry_out(self) -> Result<Replayed, RunError> {
        let store = self.graph.store.clone().ok_or_else(|| RunError::NoCheckpointer {
            graph: self.graph.name().to_owned(),
        })?;
        if self.bodies
            && let Some(error) = self.graph.missing(&self.provided)
        {
            return Err(error);
        }
        let mut walk = Walk::new(&self.graph, self.key, store, self.provided);
        walk.bodies = self.bodies;
        walk.go(self.at, self.checkpoints_max).await?;
        Ok(walk.replayed)
    }
}

impl<S: State> IntoFuture for Replay<S> {
    type Output = Result<Replayed, RunError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.carry_out())
    }
}
