//! A typed state-graph workflow engine: nodes run in supersteps over one typed state, every step is checkpointed, and a run
//! can stop at a question, a failure or a crash and go on where it was.
//!
//! # A graph in three nodes
//!
//! The state is a struct. Each field has a reducer that merges what nodes write into it; [`Replace`] unless said otherwise.
//!
//! ```
//! use std::sync::Arc;
//!
//! use serde::{Deserialize, Serialize};
//! use stepgraph::prelude::*;
//!
//! #[derive(State, Clone, Debug, Serialize, Deserialize)]
//! struct Chat {
//!     #[state(input)]
//!     question: String,
//!     #[state(per_run, reducer = Append)]
//!     sources: Vec<String>,
//!     #[state(per_run)]
//!     answer: Option<String>,
//! }
//!
//! fn chat() -> Result<Graph<Chat>, stepgraph::BuildErrors> {
//!     let mut g = Graph::<Chat>::builder("chat");
//!     let retrieve = g.node("retrieve", |chat: Arc<Chat>| async move {
//!         Ok(Chat::update().sources([format!("the manual on `{}`", chat.question)]))
//!     });
//!     let generate = g.node("generate", |chat: Arc<Chat>| async move {
//!         Ok(Chat::update().answer(format!("see {}", chat.sources.join(", "))))
//!     });
//!     let log = g.node("log", |chat: Arc<Chat>| async move {
//!         assert!(chat.answer.is_some());
//!         Ok(())
//!     });
//!     g.edge(START, retrieve).edge(retrieve, generate).edge(generate, log).edge(log, END);
//!     g.build()
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::new("session-1")?);
//! let outcome = chat()?.run(&thread, ChatInput { question: "warranty".into() }).await?;
//! assert_eq!(outcome.done().and_then(|chat| chat.answer).as_deref(), Some("see the manual on `warranty`"));
//! # Ok(()) }
//! ```
//!
//! # Where to go on
//!
//! | you want | look at |
//! |---|---|
//! | what a state's fields can be | [`State`], [`Reducer`] |
//! | a field that nobody is shown | [`State`] (`secret`) |
//! | a node with its own types, to be used in several graphs | [`Node`], [`FromState`] |
//! | a way that depends on the state | [`GraphBuilder::branch`], [`GraphBuilder::router`] |
//! | the same node for many items, and to wait for all | [`GraphBuilder::fan_out`], [`GraphBuilder::join`] |
//! | to wait for some of them only, or so long and no longer | [`GraphBuilder::join_when`], [`GraphBuilder::race`] |
//! | to know that no two nodes of a step write one field | [`GraphBuilder::writes`], [`Graph::warnings`] |
//! | items that may fail without the rest | [`GraphBuilder::fan_out_policy`] |
//! | a node that goes on along its edges, and elsewhere besides | [`GraphBuilder::router_also`] |
//! | a graph inside a graph, fresh or with a lasting state, and out of it | [`Graph::as_node`], [`SubgraphMode`], [`Context::leave`] |
//! | to keep every step, and go on after a crash | [`Graph::checkpointer`], [`Graph::resume`] |
//! | to say how soon each step is durable | [`Run::durability`] |
//! | to let runs end their step before the process stops | [`Drain`] |
//! | a limit on what a run spends | [`Run::budget`], [`Context::spend`] |
//! | to ask a person | [`Context::ask`] |
//! | an outside effect that must not happen twice | [`Context::once`] |
//! | to see what happens as it happens | [`Run::events`], [`Run::stream`] |
//! | not to do again what was done for the same question | [`GraphBuilder::cache`], [`Graph::node_cache`] |
//! | something around every node: traces, times, a refusal | [`Layer`], [`Tracing`], [`Timing`] |
//! | no more at once than something can bear | [`Run::concurrency`], [`Policy::concurrency`], [`Limiter`] |
//! | to change a state or a graph that threads live on | [`State`] (`version`, `from`), [`GraphBuilder::renamed`], [`Versions`] |
//! | to keep only the newest, and forget a tenant, where the store can ([`Memory`], PostgreSQL, Redis) | [`checkpoint::thin`], [`Checkpointer::erase`] |
//! | to see what a thread was at any checkpoint, and go on from there | [`Graph::state`], [`Graph::history`], [`Graph::select`], [`Graph::rerun_from`], [`Graph::fork`] |
//! | to know whether today's graph still does what a recorded thread did | [`Graph::recording`], [`Graph::replay`] |
//! | a drawing, or what a tool can read | [`Graph::mermaid`], [`Graph::dot`], [`Graph::ascii`], [`Graph::to_json`] |
//! | to take a thread to another store, or keep it as a test | [`Graph::export`], [`Graph::import`], [`Graph::copy`] |
//! | to take what looks like a secret out of a text | [`scrubbed`] |
//! | retries and timeouts | [`Policy`], [`GraphBuilder::defaults`], [`GraphBuilder::step_timeout`] |
//! | to go on after a failure | [`GraphBuilder::handler`], [`GraphBuilder::on_error`], [`Failure`] |
//! | a store of your own, or one around another | [`Checkpointer`], [`checkpoint::AroundStore`] |
//! | to test a graph, and to torture it | `testing`, a module behind the feature of the same name |
//!
//! # How a run goes
//!
//! A run is a sequence of *steps*. All *tasks* of a step see the state as it was when the step began; when all have finished,
//! their *updates* are merged in the order of their nodes' names, then fan-out tasks in the order in which they were sent;
//! who finished first plays no part. Branches see that state plus the task's own update. Then the changes, and what is to
//! run next, are committed in one transaction. A step in which a task fails, asks or is cancelled is not merged; what its other
//! tasks gave back is kept, so that they do not run again.

mod ask;
mod cache;
pub mod checkpoint;
mod clock;
#[doc(hidden)]
pub mod derive_support;
pub mod dynamic;
mod graph;
mod id;
mod layer;
mod node;
pub mod prelude;
mod route;
mod run;
mod scrub;
mod state;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod tree;

pub use ask::{Answers, Ask, Question};
pub use async_trait::async_trait;
pub use cache::{CacheError, CacheKey, MemoryCache, NodeCache};
pub use checkpoint::{CheckpointError, Checkpointer, Memory};
pub use clock::{Clock, SystemClock};
pub use graph::{
    AlsoId, AnyNode, BuildError, BuildErrors, END, EdgeFrom, EdgeTo, End, FanOutPolicy, Graph, GraphBuilder, HandlerId,
    HandlerRouterId, Handles, ItemError, JoinRule, MayFail, NodeId, OnFailure, Outline, OutlineWay, Reads, RouterId,
    RoutesFrom, START, Source, Start, Targets, Warning, WorkerId, from, to,
};
pub use id::{ID_BYTES_MAX, InvalidId, Namespace, RunId, TenantId, ThreadId, ThreadKey};
pub use layer::{Layer, Next, Ran, RunInfo, StepInfo, TaskInfo, Times, Timing, Tracing, Whole};
#[doc(hidden)]
pub use node::LazyContext;
pub use node::{
    Context, Effect, EffectClass, Failed, Failure, FailureKind, IdempotencyKey, InDoubt, InDoubtAnswer, IntoNode,
    Limiter, LimiterFull, Node, NodeError, PermitHeld, Policy, Retry, Terminal,
};
pub use route::{Command, Route};
pub use run::{
    AsNode, Breakpoints, Budget, Cancel, Difference, Divergence, Drain, Durability, Ended, Event, EventKind,
    EventReader, EventSender, Extra, HistoryEntry, Inside, InsideKind, NodePanic, NodeTimeout, OnBudget, OnBusy,
    OnPending, OrLeft, Outcome, OverBudget, Path, REPLAY_CHECKPOINTS_DEFAULT, RaiseBudget, ReaderGone, Recording,
    Replay, Replayed, Retrying, Run, RunError, RunEvent, RunStream, STEP_LIMIT_DEFAULT, Selected, SelectedPage,
    Selection, Snapshot, Spend, Spent, StalledJoin, StartedTask, Stop, Subgraph, SubgraphError, SubgraphMode,
    THREAD_FORMAT, TaskState, TimeoutKind, TransferError, Versions, events,
};
pub use scrub::scrubbed;
pub use state::{
    Append, Change, Changes, Field, FieldSet, FromState, Keyed, Mark, Max, MergeMap, NOTES_MAX, Reducer, Replace,
    SECRET, State, StateError, StoredItem, Sum, Union, Update, Upsert, restore_whole,
};
pub use stepgraph_macros::{Ask, Route, State, View};

/// The example of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
