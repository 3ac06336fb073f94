//! The record of a document as it is stored and paged.

use chrono::NaiveDateTime;
use serde_json::Value;

use crate::service::{
    Document, DocumentId, DocumentPage, DocumentStatus, ServiceError,
    postgres::stored::{count, read_json, read_word, refused, time},
};

/// Between the two halves of a cursor; no written time contains it.
const CURSOR_SEPARATOR: char = '~';
const CURSOR_TIME: &str = "%Y-%m-%dT%H:%M:%S%.6f";

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: String,
    pub(super) version: i64,
    pub(super) content_digest: String,
    pub(super) original_name: String,
    pub(super) file_type: String,
    file_size: i64,
    status: String,
    progress: i32,
    chunks_total: Option<i64>,
    chunks_processed: Option<i64>,
    point_ids: Value,
    error_code: Option<String>,
    error_message: Option<String>,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
}

impl Row {
    pub(super) fn status(&self) -> Result<DocumentStatus, ServiceError> {
        read_word("status", &self.status)
    }

    pub(super) fn document(self) -> Result<Document, ServiceError> {
        let chunks = |column, chunks: Option<i64>| chunks.map(|chunks| count(column, chunks)).transpose();
        Ok(Document {
            file_type: read_word("file_type", &self.file_type)?,
            file_size: count("file_size", self.file_size)?,
            version: count("version", self.version)?,
            status: self.status()?,
            progress: count("progress", self.progress)?,
            chunks_total: chunks("chunks_total", self.chunks_total)?,
            chunks_processed: chunks("chunks_processed", self.chunks_processed)?,
            point_ids: read_json("point_ids", self.point_ids)?,
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
            id: DocumentId::new(self.id),
            original_name: self.original_name,
            error_code: self.error_code,
            error_message: self.error_message,
        })
    }
}

/// Where a page ended.
pub(super) struct Cursor {
    pub(super) created_at: NaiveDateTime,
    pub(super) id: String,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, ServiceError> {
        text.split_once(CURSOR_SEPARATOR)
            .and_then(|(created_at, id)| {
                Some(Self {
                    created_at: NaiveDateTime::parse_from_str(created_at, CURSOR_TIME).ok()?,
                    id: id.to_owned(),
                })
            })
            .ok_or_else(|| refused("the cursor is not one of ours: begin again without it".to_owned()))
    }
}

/// Cuts what was found to a page of `limit` rows.
pub(super) fn page(mut rows: Vec<Row>, limit: u32) -> Result<DocumentPage, ServiceError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|last| {
        let created_at = last.created_at.format(CURSOR_TIME);
        format!("{created_at}{CURSOR_SEPARATOR}{}", last.id)
    });
    let documents = rows.into_iter().map(Row::document).collect::<Result<_, _>>()?;
    Ok(DocumentPage { documents, next_cursor })
}
