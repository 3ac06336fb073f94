//! Short-lived values.

use std::time::Duration;

use async_trait::async_trait;
use stepgraph::TenantId;
use uuid::Uuid;

use crate::service::ServiceError;

/// What a counter says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// How much has been counted, this time included where it was.
    pub count: u64,
    /// When the counter begins anew.
    pub expires_in: Duration,
    /// Whether this time was counted: not where the cap was reached before.
    pub accepted: bool,
    /// Whether this process alone knows of it, since the cache that it shares with others is away.
    pub alone: bool,
}

/// Where a cache's values are, and whether they can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheState {
    /// In this process.
    Embedded,
    /// On a server that answers.
    Answering,
    /// On a server that does not answer.
    Away,
}

/// Every counter's key begins with one of these names and a `:`. A tenant is erased by them: a cache may be shared with
/// programs that count other things.
pub const COUNTERS: [&str; 1] = [MESSAGES];

/// Counts a tenant's messages of a window.
pub const MESSAGES: &str = "rate_limit";

/// Short-lived values by key, always inside one tenant.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// The value, unless it has expired.
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError>;

    /// Keeps a value for `ttl`.
    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError>;

    /// Adds one to a counter that lives for `ttl` from its first increment, unless it has reached `cap`: checked and
    /// counted in one step, so that however many ask at once, no more than `cap` are accepted.
    async fn count(
        &self,
        tenant: &TenantId,
        key: &str,
        ttl: Duration,
        cap: Option<u64>,
    ) -> Result<Counted, ServiceError>;

    /// Adds one to such a counter without a cap, and returns the new count.
    async fn increment(&self, tenant: &TenantId, key: &str, ttl: Duration) -> Result<u64, ServiceError> {
        Ok(self.count(tenant, key, ttl, None).await?.count)
    }

    /// What names the present state of the tenant's documents, the same for all who share the cache, another one after
    /// each [`renew`](Self::renew). A part of the key of whatever rests on documents. Where it was lost it is a new one,
    /// never an old one.
    async fn generation(&self, tenant: &TenantId) -> Result<Uuid, ServiceError>;

    /// Begins a new generation: nothing that was kept under the old one is found any more.
    async fn renew(&self, tenant: &TenantId) -> Result<(), ServiceError>;

    /// Forgets all of the tenant: its values, its counters (of the names [`COUNTERS`]), its generation.
    ///
    /// # Errors
    /// It cannot be told that nothing is left. The same can be done again.
    async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError>;

    /// Where the values are, and whether they can be reached.
    async fn state(&self) -> CacheState;
}
