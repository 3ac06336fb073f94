//! What is known of threads besides their checkpoints.

use async_trait::async_trait;
use chrono::NaiveDateTime;
use serde_json::Value;
use stepgraph::TenantId;
use uuid::Uuid;

use super::{
    PostgresRecords,
    stored::{database, json, read_json, time},
};
use crate::service::{ServiceError, ThreadChange, ThreadRecord, Threads};

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    graph: Option<String>,
    metadata: Value,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
}

impl Row {
    fn record(self) -> Result<ThreadRecord, ServiceError> {
        Ok(ThreadRecord {
            id: self.id,
            graph: self.graph,
            metadata: read_json("metadata", self.metadata)?,
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
        })
    }
}

#[async_trait]
impl Threads for PostgresRecords {
    async fn create(
        &self,
        tenant: &TenantId,
        id: Uuid,
        first: &ThreadChange,
    ) -> Result<Option<ThreadRecord>, ServiceError> {
        sqlx::query_as::<_, Row>(
            "INSERT INTO stepgraph_threads (client_id, id, graph, metadata, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (client_id, id) DO NOTHING RETURNING *",
        )
        .bind(tenant.as_str())
        .bind(id)
        .bind(first.graph.as_deref())
        .bind(json(&first.metadata)?)
        .bind(self.now())
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?
        .map(Row::record)
        .transpose()
    }

    async fn get(&self, tenant: &TenantId, id: Uuid) -> Result<Option<ThreadRecord>, ServiceError> {
        sqlx::query_as::<_, Row>("SELECT * FROM stepgraph_threads WHERE client_id = $1 AND id = $2")
            .bind(tenant.as_str())
            .bind(id)
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
        sqlx::query_as::<_, Row>(
            "UPDATE stepgraph_threads SET graph = coalesce(graph, $3), metadata = metadata || $4, updated_at = $5
             WHERE client_id = $1 AND id = $2 RETURNING *",
        )
        .bind(tenant.as_str())
        .bind(id)
        .bind(change.graph.as_deref())
        .bind(json(&change.metadata)?)
        .bind(self.now())
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?
        .map(Row::record)
        .transpose()
    }
}
