//! Nodes: what runs in a step.

mod calls;
mod context;
mod effect;
mod error;
mod failure;
mod flight;
mod handler;
mod into;
mod life;
mod limiter;
mod policy;

use async_trait::async_trait;

pub(crate) use self::{
    calls::{Calls, Entry},
    context::{Arrived, Emit, Emitter, RunContext, TaskContext, TypeMap},
    error::NodeErrorKind,
    flight::{Cut, Flights, InFlight},
    handler::{Caught, handler_task},
    life::{Life, Living},
    limiter::{Held, Seat},
    policy::share,
};
pub use self::{
    context::{Context, LazyContext},
    effect::{Effect, EffectClass, IdempotencyKey, InDoubt, InDoubtAnswer},
    error::{NodeError, Terminal},
    failure::{Failure, FailureKind},
    handler::Failed,
    into::IntoNode,
    limiter::{Limiter, LimiterFull, PermitHeld},
    policy::{Policy, Retry},
};
/// A reusable node: it speaks of its own input, output and events, never of a graph's state.
///
/// A graph that uses it says how its input is read from the state (`FromState`) and how its output becomes an update
/// (`From<Output> for {Name}Update`). For a node of one graph alone, a closure or an `async fn` is enough.
///
/// ```
/// use stepgraph::{Context, Node, NodeError};
///
/// struct Shout;
///
/// #[stepgraph::async_trait]
/// impl Node for Shout {
///     type Input = String;
///     type Output = String;
///     type Event = ();
///
///     async fn run(&self, input: String, _ctx: Context<()>) -> Result<String, NodeError> {
///         Ok(input.to_uppercase())
///     }
/// }
/// ```
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// What it is given.
    type Input: Send + 'static;
    /// What it gives back.
    type Output: Send + 'static;
    /// What it may emit while it runs.
    type Event: Send + 'static;

    /// Runs the node once. It may be entered again after a crash, a retry or an answered question: what must not happen
    /// twice goes into [`Context::once`].
    async fn run(&self, input: Self::Input, ctx: Context<Self::Event>) -> Result<Self::Output, NodeError>;
}
