//! Skeleton.

mod ask;
pub mod checkpoint;
#[doc(hidden)]
pub mod derive_support;
mod id;
mod route;
mod state;

pub use ask::Ask;
pub use checkpoint::{CheckpointError, Checkpointer, Memory};
pub use id::{ID_BYTES_MAX, InvalidId, Namespace, RunId, TenantId, ThreadId, ThreadKey};
pub use route::Route;
pub use state::{
    Append, Changes, Field, FieldSet, FromState, Mark, Max, Reducer, Replace, State, StateError, Sum, Update,
    restore_whole,
};
pub use stepgraph_macros::{Ask, Route, State, View};
