//! Skeleton.

mod ask;
pub mod checkpoint;
mod clock;
#[doc(hidden)]
pub mod derive_support;
mod graph;
mod id;
mod node;
pub mod prelude;
mod route;
mod run;
mod state;

pub use ask::{Answers, Ask, Question};
pub use async_trait::async_trait;
pub use checkpoint::{CheckpointError, Checkpointer, Memory};
pub use clock::{Clock, SystemClock};
pub use graph::{
    AnyNode, BuildError, BuildErrors, END, EdgeFrom, EdgeTo, End, Graph, GraphBuilder, NodeId, RouterId, START, Source,
    Start, Targets, WorkerId, from, to,
};
pub use id::{ID_BYTES_MAX, InvalidId, Namespace, RunId, TenantId, ThreadId, ThreadKey};
pub use node::{
    Context, Effect, EffectClass, IdempotencyKey, InDoubt, InDoubtAnswer, IntoNode, Node, NodeError, Policy, Retry,
    Terminal,
};
pub use route::{Command, Route};
pub use run::{
    Cancel, Event, EventKind, EventReader, EventSender, HistoryEntry, NodePanic, NodeTimeout, OnBusy, OnPending,
    Outcome, ReaderGone, Run, RunError, RunEvent, RunStream, STEP_LIMIT_DEFAULT, Snapshot, StalledJoin, Subgraph,
    events,
};
pub use state::{
    Append, Changes, Field, FieldSet, FromState, Mark, Max, Reducer, Replace, State, StateError, Sum, Update,
    restore_whole,
};
pub use stepgraph_macros::{Ask, Route, State, View};
