//! What is known of a thread besides its checkpoints.

use async_trait::async_trait;
use serde_json::{Map, Value};
use stepgraph::TenantId;
use uuid::Uuid;

use super::{ServiceError, Timestamp};

/// A thread as its owner knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadRecord {
    /// Its id, unique inside its tenant.
    pub id: Uuid,
    /// The graph that runs on it, once one has.
    pub graph: Option<String>,
    /// Whatever its owner wants to find it by.
    pub metadata: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When this record last changed.
    pub updated_at: Timestamp,
}

/// A change to a thread's record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ThreadChange {
    /// The graph that runs on it; a thread that has one keeps it.
    pub graph: Option<String>,
    /// Laid over the metadata, key by key.
    pub metadata: Map<String, Value>,
}

/// Keeps the records of threads.
#[async_trait]
pub trait Threads: Send + Sync + 'static {
    /// Makes a thread. `None` if the tenant has one of this id already, which is left as it is.
    async fn create(
        &self,
        tenant: &TenantId,
        id: Uuid,
        first: &ThreadChange,
    ) -> Result<Option<ThreadRecord>, ServiceError>;

    /// The tenant's thread of this id, or `None`.
    async fn get(&self, tenant: &TenantId, id: Uuid) -> Result<Option<ThreadRecord>, ServiceError>;

    /// Changes a thread and gives it as it is then, or `None` if there is none.
    async fn change(
        &self,
        tenant: &TenantId,
        id: Uuid,
        change: &ThreadChange,
    ) -> Result<Option<ThreadRecord>, ServiceError>;
}
