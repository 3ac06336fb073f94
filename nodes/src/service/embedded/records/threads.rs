//! What is known of threads besides their checkpoints.

use async_trait::async_trait;
use serde_json::{Map, Value};
use sqlx::{Sqlite, Transaction};
use stepgraph::TenantId;
use uuid::Uuid;

use super::{
    SqliteRecords,
    stored::{corrupt, database, json, read_json, read_time},
};
use crate::service::{ServiceError, ThreadChange, ThreadRecord, Threads};

const COLUMNS: &str = "SELECT id, graph, metadata, created_at, updated_at FROM threads WHERE client_id = ? AND id = ?";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    graph: Option<String>,
    metadata: String,
    created_at: String,
    updated_at: String,
}

impl Row {
    fn record(self) -> Result<ThreadRecord, ServiceError> {
        Ok(ThreadRecord {
            id: Uuid::parse_str(&self.id)
                .map_err(|error| corrupt(format!("`{}` is not a thread: {error}", self.id)))?,
            graph: self.graph,
            metadata: read_json("metadata", &self.metadata)?,
            created_at: read_time(&self.created_at)?,
            updated_at: read_time(&self.updated_at)?,
        })
    }
}

async fn row(tx: &mut Transaction<'_, Sqlite>, tenant: &TenantId, id: Uuid) -> Result<Option<Row>, ServiceError> {
    sqlx::query_as(COLUMNS)
        .bind(tenant.as_str())
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await
        .map_err(database)
}

#[async_trait]
impl Threads for SqliteRecords {
    async fn create(
        &self,
        tenant: &TenantId,
        id: Uuid,
        first: &ThreadChange,
    ) -> Result<Option<ThreadRecord>, ServiceError> {
        let now = self.now_text();
        let mut tx = self.write_lock().await?;
        let made = sqlx::query(
            "INSERT INTO threads (client_id, id, graph, metadata, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (client_id, id) DO NOTHING",
        )
        .bind(tenant.as_str())
        .bind(id.to_string())
        .bind(first.graph.as_deref())
        .bind(json(&first.metadata)?)
        .bind(&now)
        .bind(&now)
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        let row = if made.rows_affected() == 1 {
            row(&mut tx, tenant, id).await?
        } else {
            None
        };
        tx.commit().await.map_err(database)?;
        row.map(Row::record).transpose()
    }

    async fn get(&self, tenant: &TenantId, id: Uuid) -> Result<Option<ThreadRecord>, ServiceError> {
        sqlx::query_as::<_, Row>(COLUMNS)
            .bind(tenant.as_str())
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(database)?
            .map(Row::record)
            .transpose()
    }

    async fn change(
        &self,
        tenant: &TenantId,
        id: Uuid,
        change: &ThreadChange,
    ) -> Result<Option<ThreadRecord>, ServiceError> {
        let mut tx = self.write_lock().await?;
        let Some(found) = row(&mut tx, tenant, id).await? else {
            return Ok(None);
        };
        let mut metadata: Map<String, Value> = read_json("metadata", &found.metadata)?;
        metadata.extend(change.metadata.clone());
        sqlx::query(
            "UPDATE threads SET graph = coalesce(graph, ?), metadata = ?, updated_at = ? WHERE client_id = ? AND id = ?",
        )
        .bind(change.graph.as_deref())
        .bind(json(&metadata)?)
        .bind(self.now_text())
        .bind(tenant.as_str())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        let changed = row(&mut tx, tenant, id).await?;
        tx.commit().await.map_err(database)?;
        changed.map(Row::record).transpose()
    }
}
