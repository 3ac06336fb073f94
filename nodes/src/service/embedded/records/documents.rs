//! Documents and the payloads of their ingestion.

mod row;
mod staging;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::{Sqlite, Transaction};
use stepgraph::TenantId;

use self::row::{Cursor, Row};
use super::{
    SqliteRecords,
    stored::{self, corrupt, count, database, integer, json, word},
};
use crate::{
    service::{
        Document, DocumentId, DocumentPage, DocumentStatus, Documents, FileType, ServiceError, Staged, Unfinished,
        records::hex,
    },
    trace,
};

/// Most documents in one page of a list.
const PAGE_MAX: u32 = 1000;

/// A file as it comes in.
struct Upload<'a> {
    tenant: &'a str,
    id: &'a DocumentId,
    original_name: &'a str,
    file_type: String,
    digest: String,
    bytes: &'a [u8],
    now: String,
}

impl Upload<'_> {
    fn is_the_file_of(&self, stored: &Row) -> bool {
        stored.content_digest == self.digest
            && stored.file_type == self.file_type
            && stored.original_name == self.original_name
    }

    async fn stored(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<Option<Row>, ServiceError> {
        sqlx::query_as("SELECT * FROM documents WHERE client_id = ? AND id = ?")
            .bind(self.tenant)
            .bind(self.id.as_str())
            .fetch_optional(&mut **tx)
            .await
            .map_err(database)
    }

    async fn next_version(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<u64, ServiceError> {
        let version: i64 = sqlx::query_scalar(
            "INSERT INTO document_versions (client_id, document_id, version) VALUES (?, ?, 1)
             ON CONFLICT (client_id, document_id) DO UPDATE SET version = version + 1 RETURNING version",
        )
        .bind(self.tenant)
        .bind(self.id.as_str())
        .fetch_one(&mut **tx)
        .await
        .map_err(database)?;
        count("version", version)
    }

    /// Writes the record as pending under `version` and stages the bytes.
    async fn begin(&self, tx: &mut Transaction<'_, Sqlite>, version: u64) -> Result<Row, ServiceError> {
        let row = sqlx::query_as(
            "INSERT INTO documents (client_id, id, version, content_digest, original_name, file_type, file_size, status,
               progress, qdrant_point_ids, created_at, updated_at, trace)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '[]', ?, ?, ?)
             ON CONFLICT (client_id, id) DO UPDATE SET version = excluded.version, content_digest = excluded.content_digest,
               original_name = excluded.original_name, file_type = excluded.file_type, file_size = excluded.file_size,
               status = excluded.status, progress = 0, qdrant_point_ids = '[]', chunks_total = NULL,
               chunks_processed = NULL, error_code = NULL, error_message = NULL, updated_at = excluded.updated_at,
               processed_at = NULL, trace = excluded.trace
             RETURNING *",
        )
        .bind(self.tenant)
        .bind(self.id.as_str())
        .bind(integer(version))
        .bind(&self.digest)
        .bind(self.original_name)
        .bind(&self.file_type)
        .bind(i64::try_from(self.bytes.len()).map_err(|_| corrupt("the file is too large".to_owned()))?)
        .bind(word(&DocumentStatus::Pending)?)
        .bind(&self.now)
        .bind(&self.now)
        .bind(trace::current().map(|trace| trace.to_string()))
        .fetch_one(&mut **tx)
        .await
        .map_err(database)?;
        staging::put(tx, self.tenant, self.id, version, Staged::File, self.bytes).await?;
        Ok(row)
    }
}

#[async_trait]
impl Documents for SqliteRecords {
    async fn accept(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        original_name: &str,
        file_type: FileType,
        bytes: &[u8],
    ) -> Result<Document, ServiceError> {
        let upload = Upload {
            tenant: tenant.as_str(),
            id,
            original_name,
            file_type: file_type.as_str().to_owned(),
            digest: hex(&Sha256::digest(bytes)),
            bytes,
            now: self.now_text(),
        };
        let mut tx = self.write_lock().await?;
        let row = match upload.stored(&mut tx).await? {
            Some(row) if upload.is_the_file_of(&row) && row.status()? == DocumentStatus::Failed => {
                let version = row.version()?;
                upload.begin(&mut tx, version).await?
            }
            Some(row) if upload.is_the_file_of(&row) => row,
            Some(_) | None => {
                let version = upload.next_version(&mut tx).await?;
                upload.begin(&mut tx, version).await?
            }
        };
        tx.commit().await.map_err(database)?;
        row.document()
    }

    async fn get(&self, tenant: &TenantId, id: &DocumentId) -> Result<Option<Document>, ServiceError> {
        sqlx::query_as::<_, Row>("SELECT * FROM documents WHERE client_id = ? AND id = ?")
            .bind(tenant.as_str())
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(database)?
            .map(Row::document)
            .transpose()
    }

    async fn owners(&self, id: &DocumentId) -> Result<Vec<TenantId>, ServiceError> {
        let owners: Vec<String> = sqlx::query_scalar("SELECT client_id FROM documents WHERE id = ? ORDER BY client_id")
            .bind(id.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(database)?;
        owners
            .into_iter()
            .map(|owner| TenantId::authenticated(owner).map_err(|error| corrupt(error.to_string())))
            .collect()
    }

    async fn unfinished(&self, limit: u32) -> Result<Vec<Unfinished>, ServiceError> {
        let rows: Vec<(String, String, i64, Option<String>)> = sqlx::query_as(
            "SELECT client_id, id, version, trace FROM documents WHERE status NOT IN ('completed', 'failed')
             ORDER BY created_at, client_id, id LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let read = |(tenant, document, version, trace): (String, String, i64, Option<String>)| {
            Ok(Unfinished {
                tenant: TenantId::authenticated(tenant).map_err(|error| corrupt(error.to_string()))?,
                document: DocumentId::new(document),
                version: count("version", version)?,
                trace: trace.and_then(|trace| trace.parse().ok()),
            })
        };
        rows.into_iter().map(read).collect()
    }

    async fn list(&self, tenant: &TenantId, limit: u32, cursor: Option<&str>) -> Result<DocumentPage, ServiceError> {
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(refused(format!("a page holds 1 to {PAGE_MAX} documents, not {limit}")));
        }
        let after = cursor.map(Cursor::parse).transpose()?;
        // One more than asked for tells whether there is another page.
        let rows = sqlx::query_as::<_, Row>(
            "SELECT * FROM documents
             WHERE client_id = ?1 AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
             ORDER BY created_at DESC, id DESC LIMIT ?4",
        )
        .bind(tenant.as_str())
        .bind(after.as_ref().map(|cursor| cursor.created_at.as_str()))
        .bind(after.as_ref().map(|cursor| cursor.id.as_str()))
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        row::page(rows, limit)
    }

    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let documents: i64 = sqlx::query_scalar("SELECT count(*) FROM documents WHERE client_id = ? AND status <> ?")
            .bind(tenant.as_str())
            .bind(word(&DocumentStatus::Failed)?)
            .fetch_one(&self.pool)
            .await
            .map_err(database)?;
        count("count", documents)
    }

    async fn progress(&self, tenant: &TenantId, document: &Document) -> Result<(), ServiceError> {
        let now = self.now_text();
        let written = sqlx::query(
            "UPDATE documents SET status = ?, progress = ?, chunks_total = ?, chunks_processed = ?, qdrant_point_ids = ?,
               error_code = ?, error_message = ?, updated_at = ?, processed_at = ?
             WHERE client_id = ? AND id = ? AND version = ?",
        )
        .bind(word(&document.status)?)
        .bind(i64::from(document.progress))
        .bind(document.chunks_total.map(i64::from))
        .bind(document.chunks_processed.map(i64::from))
        .bind(json(&document.point_ids)?)
        .bind(document.error_code.as_deref())
        .bind(document.error_message.as_deref())
        .bind(&now)
        .bind((document.status == DocumentStatus::Completed).then_some(&now))
        .bind(tenant.as_str())
        .bind(document.id.as_str())
        .bind(integer(document.version))
        .execute(&self.pool)
        .await
        .map_err(database)?;
        if written.rows_affected() == 0 {
            Err(outdated(&document.id, document.version))
        } else {
            Ok(())
        }
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        version: u64,
        what: Staged,
        bytes: &[u8],
    ) -> Result<(), ServiceError> {
        let mut tx = self.write_lock().await?;
        staging::put(&mut tx, tenant.as_str(), id, version, what, bytes).await?;
        tx.commit().await.map_err(database)
    }

    async fn staged(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        version: u64,
        what: Staged,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        staging::get(&self.pool, tenant.as_str(), id, version, what).await
    }

    async fn unstage(&self, tenant: &TenantId, id: &DocumentId, version: u64) -> Result<(), ServiceError> {
        staging::drop_until(&self.pool, tenant.as_str(), id, version).await
    }

    async fn delete(&self, tenant: &TenantId, id: &DocumentId) -> Result<bool, ServiceError> {
        let mut tx = self.write_lock().await?;
        let deleted = sqlx::query("DELETE FROM documents WHERE client_id = ? AND id = ?")
            .bind(tenant.as_str())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        staging::drop_all(&mut tx, tenant.as_str(), id).await?;
        tx.commit().await.map_err(database)?;
        Ok(deleted.rows_affected() == 1)
    }

    fn provider(&self) -> &'static str {
        "embedded"
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        sqlx::query("SELECT 1 FROM documents LIMIT 1")
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(())
    }
}

fn refused(message: String) -> ServiceError {
    ServiceError::Refused {
        service: stored::SERVICE,
        message,
    }
}

fn outdated(id: &DocumentId, version: u64) -> ServiceError {
    ServiceError::Mismatch {
        service: stored::SERVICE,
        message: format!(
            "version {version} of document `{id}` was replaced or deleted: its ingestion has nothing left to do"
        ),
    }
}
