//! Documents and the payloads of their ingestion, with the shared table kept up to date.

mod row;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use sha2::{Digest as _, Sha256};
use sqlx::{Postgres, Transaction};
use stepgraph::TenantId;

use self::row::{Cursor, Row};
use super::{
    PostgresRecords, lock,
    stored::{corrupt, count, database, integer, json, mismatch, refused, small, text, word},
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

const fn what_word(what: Staged) -> &'static str {
    match what {
        Staged::File => "file",
        Staged::Text => "text",
        Staged::Chunks => "chunks",
    }
}

/// A file as it comes in.
struct Upload<'a> {
    tenant: &'a str,
    id: &'a DocumentId,
    original_name: String,
    file_type: &'static str,
    digest: String,
    bytes: &'a [u8],
    now: NaiveDateTime,
}

impl Upload<'_> {
    fn is_the_file_of(&self, stored: &Row) -> bool {
        stored.content_digest == self.digest
            && stored.file_type == self.file_type
            && stored.original_name == self.original_name
    }

    async fn next_version(&self, tx: &mut Transaction<'_, Postgres>) -> Result<i64, ServiceError> {
        sqlx::query_scalar(
            "INSERT INTO stepgraph_document_versions AS v (client_id, document_id, version) VALUES ($1, $2, 1)
             ON CONFLICT (client_id, document_id) DO UPDATE SET version = v.version + 1 RETURNING version",
        )
        .bind(self.tenant)
        .bind(self.id.as_str())
        .fetch_one(&mut **tx)
        .await
        .map_err(database)
    }

    /// Writes the record as pending under `version` and stages the bytes.
    async fn begin(&self, tx: &mut Transaction<'_, Postgres>, version: i64) -> Result<Row, ServiceError> {
        let row = sqlx::query_as(
            "INSERT INTO stepgraph_documents (client_id, id, version, content_digest, original_name, file_type, file_size,
               status, progress, point_ids, created_at, updated_at, trace)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '[]', $9, $9, $10)
             ON CONFLICT (client_id, id) DO UPDATE SET version = excluded.version,
               content_digest = excluded.content_digest, original_name = excluded.original_name,
               file_type = excluded.file_type, file_size = excluded.file_size, status = excluded.status, progress = 0,
               point_ids = '[]', chunks_total = NULL, chunks_processed = NULL, error_code = NULL,
               error_message = NULL, updated_at = excluded.updated_at, processed_at = NULL, trace = excluded.trace
             RETURNING *",
        )
        .bind(self.tenant)
        .bind(self.id.as_str())
        .bind(version)
        .bind(&self.digest)
        .bind(&self.original_name)
        .bind(self.file_type)
        .bind(i64::try_from(self.bytes.len()).map_err(|_| corrupt("the file is too large".to_owned()))?)
        .bind(word(&DocumentStatus::Pending)?)
        .bind(self.now)
        .bind(trace::current().map(|trace| trace.to_string()))
        .fetch_one(&mut **tx)
        .await
        .map_err(database)?;
        let version = count("version", version)?;
        stage(tx, self.tenant, self.id, version, Staged::File, self.bytes).await?;
        Ok(row)
    }
}

async fn stage(
    tx: &mut Transaction<'_, Postgres>,
    tenant: &str,
    id: &DocumentId,
    version: u64,
    what: Staged,
    bytes: &[u8],
) -> Result<(), ServiceError> {
    let written = sqlx::query(
        "INSERT INTO stepgraph_document_staging (client_id, document_id, version, what, bytes)
         SELECT client_id, id, version, $4, $5 FROM stepgraph_documents
         WHERE client_id = $1 AND id = $2 AND version = $3 FOR SHARE
         ON CONFLICT (client_id, document_id, version, what) DO UPDATE SET bytes = excluded.bytes",
    )
    .bind(tenant)
    .bind(id.as_str())
    .bind(integer(version))
    .bind(what_word(what))
    .bind(bytes)
    .execute(&mut **tx)
    .await
    .map_err(database)?;
    if written.rows_affected() == 0 {
        Err(outdated(id, version))
    } else {
        Ok(())
    }
}

impl PostgresRecords {
    /// Tells the owner of the shared table how the document stands. It may have no row for it.
    async fn mirror(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        tenant: &TenantId,
        document: &Document,
        now: NaiveDateTime,
    ) -> Result<(), ServiceError> {
        if !self.shape.documents {
            return Ok(());
        }
        let status = word(&document.status)?;
        sqlx::query(
            "UPDATE documents SET status = $3, progress = $4, current_step = $3, error_message = $5, chunks_total = $6,
               chunks_processed = $7, qdrant_point_ids = $8, updated_at = $9, processed_at = $10
             WHERE client_id = $1 AND id = $2",
        )
        .bind(tenant.as_str())
        .bind(document.id.as_str())
        .bind(status)
        .bind(i32::from(document.progress))
        .bind(document.error_message.as_deref().map(text))
        .bind(document.chunks_total.map(|chunks| small(chunks.into())))
        .bind(document.chunks_processed.map(|chunks| small(chunks.into())))
        .bind(json(&document.point_ids)?)
        .bind(now)
        .bind((document.status == DocumentStatus::Completed).then_some(now))
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }
}

#[async_trait]
impl Documents for PostgresRecords {
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
            original_name: text(original_name),
            file_type: file_type.as_str(),
            digest: hex(&Sha256::digest(bytes)),
            bytes,
            now: self.now(),
        };
        let mut tx = self.begin().await?;
        lock(&mut tx, &format!("stepgraph document {tenant}/{id}")).await?;
        let stored: Option<Row> =
            sqlx::query_as("SELECT * FROM stepgraph_documents WHERE client_id = $1 AND id = $2 FOR UPDATE")
                .bind(tenant.as_str())
                .bind(id.as_str())
                .fetch_optional(&mut *tx)
                .await
                .map_err(database)?;
        let row = match stored {
            Some(row) if upload.is_the_file_of(&row) && row.status()? == DocumentStatus::Failed => {
                upload.begin(&mut tx, row.version).await?
            }
            Some(row) if upload.is_the_file_of(&row) => row,
            Some(_) | None => {
                let version = upload.next_version(&mut tx).await?;
                upload.begin(&mut tx, version).await?
            }
        };
        let document = row.document()?;
        self.mirror(&mut tx, tenant, &document, upload.now).await?;
        tx.commit().await.map_err(database)?;
        Ok(document)
    }

    async fn get(&self, tenant: &TenantId, id: &DocumentId) -> Result<Option<Document>, ServiceError> {
        sqlx::query_as::<_, Row>("SELECT * FROM stepgraph_documents WHERE client_id = $1 AND id = $2")
            .bind(tenant.as_str())
            .bind(text(id.as_str()))
            .fetch_optional(&self.pool)
            .await
            .map_err(database)?
            .map(Row::document)
            .transpose()
    }

    async fn owners(&self, id: &DocumentId) -> Result<Vec<TenantId>, ServiceError> {
        let owners: Vec<String> =
            sqlx::query_scalar("SELECT client_id FROM stepgraph_documents WHERE id = $1 ORDER BY client_id")
                .bind(text(id.as_str()))
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
            "SELECT client_id, id, version, trace FROM stepgraph_documents WHERE status NOT IN ('completed', 'failed')
             ORDER BY created_at, client_id, id LIMIT $1",
        )
        .bind(i64::from(limit))
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
            "SELECT * FROM stepgraph_documents
             WHERE client_id = $1 AND ($2::timestamp IS NULL OR (created_at, id) < ($2, $3))
             ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(tenant.as_str())
        .bind(after.as_ref().map(|cursor| cursor.created_at))
        .bind(after.as_ref().map(|cursor| cursor.id.as_str()))
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        row::page(rows, limit)
    }

    async fn count(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let documents: i64 =
            sqlx::query_scalar("SELECT count(*) FROM stepgraph_documents WHERE client_id = $1 AND status <> 'failed'")
                .bind(tenant.as_str())
                .fetch_one(&self.pool)
                .await
                .map_err(database)?;
        count("count", documents)
    }

    async fn progress(&self, tenant: &TenantId, document: &Document) -> Result<(), ServiceError> {
        let now = self.now();
        let mut tx = self.begin().await?;
        let written = sqlx::query(
            "UPDATE stepgraph_documents SET status = $4, progress = $5, chunks_total = $6, chunks_processed = $7,
               point_ids = $8, error_code = $9, error_message = $10, updated_at = $11, processed_at = $12
             WHERE client_id = $1 AND id = $2 AND version = $3",
        )
        .bind(tenant.as_str())
        .bind(document.id.as_str())
        .bind(integer(document.version))
        .bind(word(&document.status)?)
        .bind(i32::from(document.progress))
        .bind(document.chunks_total.map(i64::from))
        .bind(document.chunks_processed.map(i64::from))
        .bind(json(&document.point_ids)?)
        .bind(document.error_code.as_deref().map(text))
        .bind(document.error_message.as_deref().map(text))
        .bind(now)
        .bind((document.status == DocumentStatus::Completed).then_some(now))
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        if written.rows_affected() == 0 {
            return Err(outdated(&document.id, document.version));
        }
        self.mirror(&mut tx, tenant, document, now).await?;
        tx.commit().await.map_err(database)
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        version: u64,
        what: Staged,
        bytes: &[u8],
    ) -> Result<(), ServiceError> {
        let mut tx = self.begin().await?;
        stage(&mut tx, tenant.as_str(), id, version, what, bytes).await?;
        tx.commit().await.map_err(database)
    }

    async fn staged(
        &self,
        tenant: &TenantId,
        id: &DocumentId,
        version: u64,
        what: Staged,
    ) -> Result<Option<Vec<u8>>, ServiceError> {
        sqlx::query_scalar(
            "SELECT bytes FROM stepgraph_document_staging
             WHERE client_id = $1 AND document_id = $2 AND version = $3 AND what = $4",
        )
        .bind(tenant.as_str())
        .bind(id.as_str())
        .bind(integer(version))
        .bind(what_word(what))
        .fetch_optional(&self.pool)
        .await
        .map_err(database)
    }

    async fn unstage(&self, tenant: &TenantId, id: &DocumentId, version: u64) -> Result<(), ServiceError> {
        sqlx::query(
            "DELETE FROM stepgraph_document_staging WHERE client_id = $1 AND document_id = $2 AND version <= $3",
        )
        .bind(tenant.as_str())
        .bind(id.as_str())
        .bind(integer(version))
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// The shared row is its owner's and stays, without points.
    async fn delete(&self, tenant: &TenantId, id: &DocumentId) -> Result<bool, ServiceError> {
        let mut tx = self.begin().await?;
        let deleted = sqlx::query("DELETE FROM stepgraph_documents WHERE client_id = $1 AND id = $2")
            .bind(tenant.as_str())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        sqlx::query("DELETE FROM stepgraph_document_staging WHERE client_id = $1 AND document_id = $2")
            .bind(tenant.as_str())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        if self.shape.documents {
            sqlx::query(
                "UPDATE documents SET qdrant_point_ids = '[]', current_step = 'deleted', updated_at = $3
                 WHERE client_id = $1 AND id = $2",
            )
            .bind(tenant.as_str())
            .bind(id.as_str())
            .bind(self.now())
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        }
        tx.commit().await.map_err(database)?;
        Ok(deleted.rows_affected() == 1)
    }

    fn provider(&self) -> &'static str {
        "postgres"
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        sqlx::query("SELECT 1 FROM stepgraph_documents LIMIT 1")
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(())
    }
}

fn outdated(id: &DocumentId, version: u64) -> ServiceError {
    mismatch(format!(
        "version {version} of document `{id}` was replaced or deleted: its ingestion has nothing left to do"
    ))
}
