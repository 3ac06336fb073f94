//! Short-lived values.

use std::time::Duration;

use async_trait::async_trait;
use stepgraph::TenantId;

use crate::service::ServiceError;

/// Short-lived values by key, always inside one tenant.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// The value, unless it has expired.
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError>;

    /// Keeps a value for `ttl`.
    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError>;

    /// Adds one to a counter that lives for `ttl` from its first increment, atomically, and returns the new count.
    async fn increment(&self, tenant: &TenantId, key: &str, ttl: Duration) -> Result<u64, ServiceError>;
}
