//! Payloads of an ingestion, by tenant, document, version and kind.

use sqlx::{Sqlite, SqlitePool, Transaction};

use super::outdated;
use crate::service::{
    DocumentId, ServiceError, Staged,
    embedded::records::stored::{database, integer},
};

const fn word(what: Staged) -> &'static str {
    match what {
        Staged::File => "file",
        Staged::Text => "text",
        Staged::Chunks => "chunks",
    }
}

/// Keeps a payload. Refused for a version that the document no longer has, so that nothing is left behind for ever.
pub(super) async fn put(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: &str,
    id: &DocumentId,
    version: u64,
    what: Staged,
    bytes: &[u8],
) -> Result<(), ServiceError> {
    let written = sqlx::query(
        "INSERT INTO document_staging (client_id, document_id, version, what, bytes)
         SELECT client_id, id, version, ?, ? FROM documents WHERE client_id = ? AND id = ? AND version = ?
         ON CONFLICT (client_id, document_id, version, what) DO UPDATE SET bytes = excluded.bytes",
    )
    .bind(word(what))
    .bind(bytes)
    .bind(tenant)
    .bind(id.as_str())
    .bind(integer(version))
    .execute(&mut **tx)
    .await
    .map_err(database)?;
    if written.rows_affected() == 0 {
        Err(outdated(id, version))
    } else {
        Ok(())
    }
}

pub(super) async fn get(
    pool: &SqlitePool,
    tenant: &str,
    id: &DocumentId,
    version: u64,
    what: Staged,
) -> Result<Option<Vec<u8>>, ServiceError> {
    sqlx::query_scalar(
        "SELECT bytes FROM document_staging WHERE client_id = ? AND document_id = ? AND version = ? AND what = ?",
    )
    .bind(tenant)
    .bind(id.as_str())
    .bind(integer(version))
    .bind(word(what))
    .fetch_optional(pool)
    .await
    .map_err(database)
}

pub(super) async fn drop_until(
    pool: &SqlitePool,
    tenant: &str,
    id: &DocumentId,
    version: u64,
) -> Result<(), ServiceError> {
    sqlx::query("DELETE FROM document_staging WHERE client_id = ? AND document_id = ? AND version <= ?")
        .bind(tenant)
        .bind(id.as_str())
        .bind(integer(version))
        .execute(pool)
        .await
        .map_err(database)?;
    Ok(())
}

pub(super) async fn drop_all(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: &str,
    id: &DocumentId,
) -> Result<(), ServiceError> {
    sqlx::query("DELETE FROM document_staging WHERE client_id = ? AND document_id = ?")
        .bind(tenant)
        .bind(id.as_str())
        .execute(&mut **tx)
        .await
        .map_err(database)?;
    Ok(())
}
