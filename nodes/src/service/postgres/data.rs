//! All rows of a tenant, to take out or to erase.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use stepgraph::TenantId;

use super::{
    PostgresRecords,
    schema::Shape,
    stored::{count, database, refused},
};
use crate::service::{Erased, ExportedRow, ServiceError, TenantData};

/// A table and its statements. `cursor` is unique inside a tenant and sorts as text.
struct Table {
    name: &'static str,
    is_there: fn(&Shape) -> bool,
    export: &'static str,
    count: &'static str,
    delete: &'static str,
}

macro_rules! table {
    ($name:literal by $tenant:literal at $cursor:literal if $is_there:expr) => {
        Table {
            name: $name,
            is_there: $is_there,
            export: concat!(
                "SELECT * FROM (SELECT (", $cursor, ")::text COLLATE \"C\" AS cursor, to_jsonb(t) AS row_json FROM ",
                $name, " t WHERE ", $tenant, " = $1) rows WHERE $2::text IS NULL OR cursor > $2 ORDER BY cursor LIMIT $3"
            ),
            count: concat!("SELECT count(*) FROM ", $name, " WHERE ", $tenant, " = $1"),
            delete: concat!("DELETE FROM ", $name, " WHERE ", $tenant, " = $1"),
        }
    };
    ($name:literal at $cursor:literal) => {
        table!($name by "client_id" at $cursor if |_| true)
    };
}

/// In the order of deletion: the tenant itself goes last.
const TABLES: &[Table] = &[
    table!("stepgraph_feedback" at "trace_id"),
    table!("stepgraph_named_requests" at "session_id || chr(31) || name"),
    table!("stepgraph_turns" at "trace_id"),
    table!("chat_logs" by "client_id" at "id" if |shape| shape.chat_logs),
    table!("stepgraph_document_staging" at "document_id || chr(31) || lpad(version::text, 20, '0') || what"),
    table!("stepgraph_documents" at "id"),
    table!("documents" by "client_id" at "id" if |shape| shape.documents),
    table!("stepgraph_document_versions" at "document_id"),
    table!("stepgraph_threads" at "id"),
    table!("usage_hourly" at "date::text || lpad(hour::text, 2, '0')"),
    table!("usage_stats" by "client_id" at "id" if |shape| shape.usage_stats),
    table!("stepgraph_usage_alerts" at "window_start::text || level"),
    table!("billing_events" at "id"),
    table!("stepgraph_tenant_settings" at "client_id"),
    table!("client_widgets" at "client_id"),
    table!("clients" by "id" at "id" if |_| true),
];

const NAMES: &[&str] = &[
    "stepgraph_feedback",
    "stepgraph_named_requests",
    "stepgraph_turns",
    "chat_logs",
    "stepgraph_document_staging",
    "stepgraph_documents",
    "documents",
    "stepgraph_document_versions",
    "stepgraph_threads",
    "usage_hourly",
    "usage_stats",
    "stepgraph_usage_alerts",
    "billing_events",
    "stepgraph_tenant_settings",
    "client_widgets",
    "clients",
];

impl PostgresRecords {
    async fn rows_in(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        tenant: &TenantId,
    ) -> Result<Vec<Erased>, ServiceError> {
        let mut counted = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let rows = if (table.is_there)(&self.shape) {
                let rows: i64 = sqlx::query_scalar(table.count)
                    .bind(tenant.as_str())
                    .fetch_one(&mut **tx)
                    .await
                    .map_err(database)?;
                count("count", rows)?
            } else {
                0
            };
            counted.push(Erased {
                table: table.name,
                rows,
            });
        }
        Ok(counted)
    }
}

#[async_trait]
impl TenantData for PostgresRecords {
    fn tables(&self) -> &'static [&'static str] {
        NAMES
    }

    async fn export(
        &self,
        tenant: &TenantId,
        table: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ExportedRow>, ServiceError> {
        let Some(table) = TABLES.iter().find(|known| known.name == table) else {
            return Err(refused(format!(
                "there is no table `{table}`: use one of {}",
                NAMES.join(", ")
            )));
        };
        if !(table.is_there)(&self.shape) {
            return Ok(Vec::new());
        }
        let rows: Vec<(String, Value)> = sqlx::query_as(table.export)
            .bind(tenant.as_str())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(database)?;
        let exported = |(cursor, row)| ExportedRow {
            table: table.name,
            cursor,
            row,
        };
        Ok(rows.into_iter().map(exported).collect())
    }

    async fn rows(&self, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError> {
        let mut tx = self.begin().await?;
        self.rows_in(&mut tx, tenant).await
    }

    /// Refused unless `clients` may be written: what refers to it there is its owner's too.
    async fn erase(&self, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError> {
        self.may_write_clients()?;
        let mut tx = self.begin().await?;
        let mut erased = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let rows = if (table.is_there)(&self.shape) {
                let deleted = sqlx::query(table.delete).bind(tenant.as_str()).execute(&mut *tx).await;
                deleted.map_err(database)?.rows_affected()
            } else {
                0
            };
            erased.push(Erased {
                table: table.name,
                rows,
            });
        }
        tx.commit().await.map_err(database)?;
        Ok(erased)
    }
}
