//! Reading the file out.

use async_trait::async_trait;
use stepgraph::TenantId;

use super::{SqliteVectors, corrupt, database, dense, number};
use crate::service::{Chunk, DocumentId, ServiceError, VectorCatalog};

#[derive(sqlx::FromRow)]
struct ChunkRow {
    chunk_index: i64,
    title: String,
    text: String,
    components: Option<Vec<u8>>,
}

#[async_trait]
impl VectorCatalog for SqliteVectors {
    async fn tenants(&self) -> Result<Vec<TenantId>, ServiceError> {
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM tenant ORDER BY name")
            .fetch_all(&self.readers)
            .await
            .map_err(database)?;
        let tenant = |name: String| TenantId::authenticated(name).map_err(|error| corrupt(error.to_string()));
        names.into_iter().map(tenant).collect()
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, ServiceError> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT document FROM chunk WHERE tenant = (SELECT id FROM tenant WHERE name = ?) ORDER BY document",
        )
        .bind(tenant.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(database)?;
        Ok(names.into_iter().map(DocumentId::new).collect())
    }

    async fn chunks(&self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<Chunk>, ServiceError> {
        let rows: Vec<ChunkRow> = sqlx::query_as(
            "SELECT chunk_index, title, text, components FROM chunk \
             LEFT JOIN vector ON vector.tenant = chunk.tenant AND vector.chunk = chunk.id \
             WHERE chunk.tenant = (SELECT id FROM tenant WHERE name = ?) AND document = ? ORDER BY chunk_index",
        )
        .bind(tenant.as_str())
        .bind(document.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(database)?;
        let chunk = |row: ChunkRow| {
            Ok(Chunk {
                index: number(row.chunk_index)?,
                title: row.title,
                text: row.text,
                dense: row.components.as_deref().map(dense::unpack),
            })
        };
        rows.into_iter().map(chunk).collect()
    }
}
