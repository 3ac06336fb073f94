//! The record of a document as it is stored and paged.

use crate::service::{
    Document, DocumentId, DocumentPage, DocumentStatus, ServiceError,
    embedded::records::stored::{count, read_json, read_time, read_word},
};

use super::refused;

/// Between the two halves of a cursor; no stored time contains it.
const CURSOR_SEPARATOR: char = '~';

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: String,
    version: i64,
    pub(super) content_digest: String,
    pub(super) original_name: String,
    pub(super) file_type: String,
    file_size: i64,
    status: String,
    progress: i64,
    chunks_total: Option<i64>,
    chunks_processed: Option<i64>,
    qdrant_point_ids: String,
    error_code: Option<String>,
    error_message: Option<String>,
    created_at: String,
    updated_at: String,
}

impl Row {
    pub(super) fn status(&self) -> Result<DocumentStatus, ServiceError> {
        read_word("status", &self.status)
    }

    pub(super) fn version(&self) -> Result<u64, ServiceError> {
        count("version", self.version)
    }

    pub(super) fn document(self) -> Result<Document, ServiceError> {
        Ok(Document {
            file_type: read_word("file_type", &self.file_type)?,
            file_size: count("file_size", self.file_size)?,
            version: self.version()?,
            status: self.status()?,
            progress: count("progress", self.progress)?,
            chunks_total: self
                .chunks_total
                .map(|chunks| count("chunks_total", chunks))
                .transpose()?,
            chunks_processed: self
                .chunks_processed
                .map(|chunks| count("chunks_processed", chunks))
                .transpose()?,
            point_ids: read_json("qdrant_point_ids", &self.qdrant_point_ids)?,
            created_at: read_time(&self.created_at)?,
            updated_at: read_time(&self.updated_at)?,
            id: DocumentId::new(self.id),
            original_name: self.original_name,
            error_code: self.error_code,
            error_message: self.error_message,
        })
    }
}

/// Where a page ended.
pub(super) struct Cursor {
    pub(super) created_at: String,
    pub(super) id: String,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, ServiceError> {
        text.split_once(CURSOR_SEPARATOR)
            .filter(|(created_at, _)| read_time(created_at).is_ok())
            .map(|(created_at, id)| Self {
                created_at: created_at.to_owned(),
                id: id.to_owned(),
            })
            .ok_or_else(|| refused("the cursor is not one of ours: begin again without it".to_owned()))
    }
}

/// Cuts what was found to a page of `limit` rows.
pub(super) fn page(mut rows: Vec<Row>, limit: u32) -> Result<DocumentPage, ServiceError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows
        .last()
        .filter(|_| more)
        .map(|last| format!("{}{CURSOR_SEPARATOR}{}", last.created_at, last.id));
    let documents = rows.into_iter().map(Row::document).collect::<Result<_, _>>()?;
    Ok(DocumentPage { documents, next_cursor })
}
