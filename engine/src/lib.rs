//! Skeleton.

mod id;
pub use id::{ID_BYTES_MAX, InvalidId, Namespace, RunId, TenantId, ThreadId, ThreadKey};
