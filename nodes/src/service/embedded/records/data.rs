//! All rows of a tenant, to take out or to erase.

use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};
use stepgraph::TenantId;

use super::{
    SqliteRecords,
    stored::{self, count, database, read_json},
};
use crate::service::{Erased, ExportedRow, ServiceError, TenantData};

/// A table and its statements. `cursor` is unique inside a tenant and sorts as text.
struct Table {
    name: &'static str,
    export: &'static str,
    count: &'static str,
    delete: &'static str,
}

macro_rules! table {
    ($name:literal by $tenant:literal at $cursor:literal: $($column:literal),+ $(; hex $bytes:literal)?) => {
        Table {
            name: $name,
            export: concat!(
                "SELECT ", $cursor, " AS cursor, json_object(", $("'", $column, "', ", $column, ", ",)+
                $("'", $bytes, "', hex(", $bytes, "), ",)? "'client', ", $tenant, ") AS row_text FROM ", $name,
                " WHERE ", $tenant, " = ?1 AND (?2 IS NULL OR ", $cursor, " > ?2) ORDER BY 1 LIMIT ?3"
            ),
            count: concat!("SELECT count(*) FROM ", $name, " WHERE ", $tenant, " = ?"),
            delete: concat!("DELETE FROM ", $name, " WHERE ", $tenant, " = ?"),
        }
    };
}

/// In the order of deletion: the tenant itself goes last.
const TABLES: &[Table] = &[
    table!("feedback" by "client_id" at "trace_id": "trace_id", "rating", "comment", "rated_at"),
    table!("named_requests" by "client_id" at "session_id || char(31) || name": "session_id", "name", "trace_id", "state",
        "answer", "taken_at", "expires_at"),
    table!("chat_logs" by "client_id" at "id": "id", "session_id", "role", "content", "sources", "prompt_tokens",
        "completion_tokens", "total_tokens", "cached", "model", "latency_ms", "metadata", "trace_id", "created_at"),
    table!("document_staging" by "client_id" at "document_id || char(31) || printf('%020d', version) || what":
        "document_id", "version", "what"; hex "bytes"),
    table!("documents" by "client_id" at "id": "id", "version", "content_digest", "original_name", "file_type",
        "file_size", "status", "progress", "chunks_total", "chunks_processed", "qdrant_point_ids", "error_code",
        "error_message", "created_at", "updated_at", "processed_at"),
    table!("document_versions" by "client_id" at "document_id": "document_id", "version"),
    table!("threads" by "client_id" at "id": "id", "graph", "metadata", "created_at", "updated_at"),
    table!("usage_hourly" by "client_id" at "date || printf('%02d', hour)": "date", "hour", "request_count",
        "overage_count", "total_tokens", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_microcents"),
    table!("usage_stats" by "client_id" at "date": "date", "total_messages", "user_messages", "assistant_messages",
        "total_tokens", "prompt_tokens", "completion_tokens", "cached_tokens", "estimated_cost_cents",
        "unique_sessions", "avg_latency_ms", "p95_latency_ms", "updated_at"),
    table!("usage_alerts" by "client_id" at "window_start || level": "window_start", "level", "alert", "delivery"),
    table!("billing_events" by "client_id" at "id": "id", "event_type", "amount_cents", "details", "status",
        "created_at"),
    table!("tenant_settings" by "client_id" at "client_id": "settings", "updated_at"),
    table!("client_widgets" by "client_id" at "client_id": "model", "system_prompt", "updated_at"),
    table!("clients" by "id" at "id": "id", "public_api_key", "allowed_domains", "status", "tier", "unlimited",
        "created_at"),
];

const NAMES: &[&str] = &[
    "feedback",
    "named_requests",
    "chat_logs",
    "document_staging",
    "documents",
    "document_versions",
    "threads",
    "usage_hourly",
    "usage_stats",
    "usage_alerts",
    "billing_events",
    "tenant_settings",
    "client_widgets",
    "clients",
];

async fn rows_of(tx: &mut Transaction<'_, Sqlite>, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError> {
    let mut counted = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let rows: i64 = sqlx::query_scalar(table.count)
            .bind(tenant.as_str())
            .fetch_one(&mut **tx)
            .await
            .map_err(database)?;
        counted.push(Erased {
            table: table.name,
            rows: count("count", rows)?,
        });
    }
    Ok(counted)
}

#[async_trait]
impl TenantData for SqliteRecords {
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
            return Err(ServiceError::Refused {
                service: stored::SERVICE,
                message: format!("there is no table `{table}`: use one of {}", NAMES.join(", ")),
            });
        };
        let rows: Vec<(String, String)> = sqlx::query_as(table.export)
            .bind(tenant.as_str())
            .bind(after)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(database)?;
        rows.into_iter()
            .map(|(cursor, row)| {
                Ok(ExportedRow {
                    table: table.name,
                    cursor,
                    row: read_json("row", &row)?,
                })
            })
            .collect()
    }

    async fn rows(&self, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError> {
        let mut tx = self.pool.begin().await.map_err(database)?;
        rows_of(&mut tx, tenant).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<Vec<Erased>, ServiceError> {
        let mut tx = self.write_lock().await?;
        let counted = rows_of(&mut tx, tenant).await?;
        for table in TABLES {
            sqlx::query(table.delete)
                .bind(tenant.as_str())
                .execute(&mut *tx)
                .await
                .map_err(database)?;
        }
        tx.commit().await.map_err(database)?;
        Ok(counted)
    }
}
