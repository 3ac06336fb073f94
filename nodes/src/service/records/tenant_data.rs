//! All that is kept of a tenant, to take out or to erase.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;
use stepgraph::TenantId;

use crate::service::ServiceError;

/// One row of a tenant's, as it is stored. Bytes are hexadecimal text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportedRow {
    /// The table.
    pub table: &'static str,
    /// Where to go on behind it.
    #[serde(skip)]
    pub cursor: String,
    /// Its columns.
    pub row: Value,
}

/// How many rows a table has, or had, of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// The table.
    pub table: &'static str,
    /// Its rows of the tenant.
    pub rows: u64,
}

/// All rows of a tenant, whatever they are.
#[async_trait]
pub trait TenantData: Send + Sync + 'static {
    /// The tables that hold rows of tenants.
    fn tables(&self) -> &'static [&'static str];

    /// The next rows of a table, at most `limit`, behind `after` where it is given.
    async fn export(
        &self,
        tenant: &TenantId,
        table: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ExportedRow>, ServiceError>;

    /// How many rows each table has of the tenant.
    async fn rows(&self, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError>;

    /// Deletes every row of the tenant, the tenant itself last, all in one transaction, and says how many there were.
    async fn erase(&self, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError>;
}
