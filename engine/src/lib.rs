//! Skeleton.

pub mod checkpoint;
mod id;
mod state;

pub use checkpoint::{CheckpointError, Checkpointer, Memory};
pub use id::{ID_BYTES_MAX, InvalidId, Namespace, RunId, TenantId, ThreadId, ThreadKey};
pub use state::{
    Append, Changes, Field, FieldSet, FromState, Mark, Max, Reducer, Replace, State, StateError, Sum, Update,
    restore_whole,
};

#[doc(hidden)]
pub mod derive_support {
    //! What the expansion of the derives names.
    pub use crate::state::present;
    pub use rmp_serde;
    pub use serde;
}
