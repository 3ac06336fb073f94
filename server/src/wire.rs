//! What stands on the wire: camelCase out, camelCase and `snake_case` in, unknown members ignored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stepgraph::RunId;
use stepgraph_nodes::service::{Document, DocumentStatus, FinishReason, ModelName, Rating, Source};
use utoipa::{
    ToSchema,
    openapi::{Ref, RefOr, Schema, schema::ArrayBuilder},
};
use uuid::Uuid;

use crate::{backend::Answer, error::ApiError};

/// Longest message, in code points.
pub(crate) const MESSAGE_CHARS_MAX: usize = 2_000;
/// Largest body of a chat request.
pub(crate) const CHAT_BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a request that carries a document.
pub(crate) const DOCUMENT_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest document, decoded.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Longest name of a document or its file, in code points.
pub(crate) const NAME_CHARS_MAX: usize = 255;

/// Longest comment of a rating, in code points.
pub(crate) const COMMENT_CHARS_MAX: usize = 1_000;
/// Most texts of one `/embed`.
pub(crate) const EMBED_TEXTS_MAX: usize = 256;
/// Longest text of an `/embed`, in code points.
pub(crate) const EMBED_TEXT_CHARS_MAX: usize = 8_000;
/// Largest body of an `/embed`.
pub(crate) const EMBED_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Body of `/chat` and `/chat/stream`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatBody {
    #[serde(default, alias = "client_id")]
    pub(crate) client_id: Option<String>,
    pub(crate) message: String,
    #[serde(alias = "session_id")]
    pub(crate) session_id: String,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Option<Map<String, Value>>,
}

impl ChatBody {
    /// The page that the message says it comes from.
    pub(crate) fn page_url(&self) -> Option<&str> {
        let metadata = self.metadata.as_ref()?;
        ["pageUrl", "page_url"]
            .iter()
            .find_map(|name| metadata.get(*name).and_then(Value::as_str))
    }

    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        let chars = self.message.chars().count();
        if chars == 0 || chars > MESSAGE_CHARS_MAX {
            let message = format!("`message` has {chars} characters: send 1 to {MESSAGE_CHARS_MAX}");
            return Err(ApiError::invalid("message_length", message));
        }
        // Only the hyphenated form: the parser takes others, which no client sends and which would name other threads.
        if self.session_id.len() != 36 || Uuid::parse_str(&self.session_id).is_err() {
            return Err(ApiError::invalid("session_id", "`sessionId` must be a UUID"));
        }
        Ok(())
    }
}

/// Answer of `/chat`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatReply<'a> {
    pub(crate) response: &'a str,
    pub(crate) session_id: &'a str,
    #[schema(schema_with = sources)]
    pub(crate) sources: &'a [Source],
    #[schema(schema_with = usage)]
    pub(crate) usage: UsageReply<'a>,
    #[schema(value_type = Uuid)]
    pub(crate) trace_id: RunId,
}

/// What an answer cost.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageReply<'a> {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    cached: bool,
    model: &'a str,
    #[schema(schema_with = finish_reason)]
    finish_reason: FinishReason,
}

impl<'a> From<&'a Answer> for UsageReply<'a> {
    fn from(answer: &'a Answer) -> Self {
        let usage = answer.usage;
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            cached: usage.cached_tokens > 0,
            model: answer.model.as_str(),
            finish_reason: answer.finish_reason,
        }
    }
}

/// Body of `/process-document`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DocumentBody {
    #[serde(alias = "document_id")]
    pub(crate) document_id: String,
    #[serde(alias = "client_id")]
    pub(crate) client_id: String,
    #[serde(alias = "file_data")]
    pub(crate) file_data: String,
    #[serde(alias = "file_type")]
    pub(crate) file_type: String,
    #[serde(alias = "original_name")]
    pub(crate) original_name: String,
}

/// Answer of `/process-document`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessReply {
    pub(crate) success: bool,
    pub(crate) document_id: String,
    pub(crate) chunks_created: u32,
    pub(crate) qdrant_point_ids: Vec<Uuid>,
    pub(crate) processing_time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_message: Option<String>,
}

/// Answer of `/documents/{id}/status`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusReply {
    document_id: String,
    #[schema(schema_with = document_status)]
    status: DocumentStatus,
    progress: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks_total: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks_processed: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    qdrant_point_ids: Vec<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
}

impl From<Document> for StatusReply {
    fn from(document: Document) -> Self {
        Self {
            document_id: document.id.as_str().to_owned(),
            status: document.status,
            progress: document.progress,
            current_step: current_step(document.status),
            chunks_total: document.chunks_total,
            chunks_processed: document.chunks_processed,
            qdrant_point_ids: document.point_ids,
            error_code: document.error_code,
            error_message: document.error_message,
        }
    }
}

/// The step a document is in, in words for its owner; none once it is over.
pub(crate) const fn current_step(status: DocumentStatus) -> Option<&'static str> {
    match status {
        DocumentStatus::Pending => Some("Waiting"),
        DocumentStatus::Parsing => Some("Reading the file"),
        DocumentStatus::Chunking => Some("Cutting the text"),
        DocumentStatus::Embedding => Some("Making vectors"),
        DocumentStatus::Storing => Some("Storing"),
        DocumentStatus::Completed | DocumentStatus::Failed => None,
    }
}

/// Answer of `/documents`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DocumentList {
    pub(crate) documents: Vec<DocumentRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// One document of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DocumentRow {
    document_id: String,
    original_name: String,
    file_type: &'static str,
    #[schema(schema_with = document_status)]
    status: DocumentStatus,
    progress: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks_total: Option<u32>,
    created_at: String,
}

impl From<Document> for DocumentRow {
    fn from(document: Document) -> Self {
        Self {
            document_id: document.id.as_str().to_owned(),
            original_name: document.original_name,
            file_type: document.file_type.as_str(),
            status: document.status,
            progress: document.progress,
            chunks_total: document.chunks_total,
            created_at: document.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        }
    }
}

/// Answer of `DELETE /documents/{id}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeleteReply {
    pub(crate) success: bool,
    pub(crate) points_deleted: u64,
}

/// Which tenant an operator's call is about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantQuery {
    #[serde(default, alias = "client_id")]
    pub(crate) client_id: Option<String>,
}

/// Query of `/documents`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListQuery {
    #[serde(default, alias = "client_id")]
    pub(crate) client_id: Option<String>,
    #[serde(default)]
    pub(crate) limit: Option<u32>,
    #[serde(default)]
    pub(crate) cursor: Option<String>,
}

/// Body or query of `/internal/validate-client`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyBody {
    #[serde(default, alias = "api_key")]
    pub(crate) api_key: Option<String>,
}

/// Answer of `/internal/validate-client`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ValidateReply {
    pub(crate) valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allowed_domains: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_message: Option<String>,
}

/// Body of `/feedback`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FeedbackBody {
    #[serde(default, alias = "client_id")]
    pub(crate) client_id: Option<String>,
    #[serde(alias = "trace_id")]
    pub(crate) trace_id: Uuid,
    #[schema(schema_with = rating)]
    pub(crate) rating: Rating,
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

impl FeedbackBody {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        let chars = self.comment.as_ref().map_or(0, |comment| comment.chars().count());
        if chars > COMMENT_CHARS_MAX {
            let message = format!("`comment` has {chars} characters: send at most {COMMENT_CHARS_MAX}");
            return Err(ApiError::invalid("comment_length", message));
        }
        Ok(())
    }
}

/// Answer of a call that has nothing else to say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuccessReply {
    pub(crate) success: bool,
}

/// Answer of `/internal/client/{id}/config`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigReply {
    pub(crate) client_id: String,
    pub(crate) tier: &'static str,
    pub(crate) status: &'static str,
    pub(crate) model: String,
    pub(crate) max_tokens_per_request: u32,
    /// The window's limit spread over its minutes, rounded up; what counts is the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests_per_window: Option<u64>,
    pub(crate) window_seconds: u64,
}

/// Body of `/embed`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EmbedBody {
    #[serde(alias = "client_id")]
    pub(crate) client_id: String,
    pub(crate) texts: Vec<String>,
}

impl EmbedBody {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        let count = self.texts.len();
        if count == 0 || count > EMBED_TEXTS_MAX {
            let message = format!("`texts` has {count} texts: send 1 to {EMBED_TEXTS_MAX}");
            return Err(ApiError::invalid("texts", message));
        }
        let is_fit = |text: &String| (1..=EMBED_TEXT_CHARS_MAX).contains(&text.chars().count());
        if self.texts.iter().all(is_fit) {
            Ok(())
        } else {
            let message = format!("each of `texts` must have 1 to {EMBED_TEXT_CHARS_MAX} characters");
            Err(ApiError::invalid("text_length", message))
        }
    }
}

/// Answer of `/embed`: one vector for each text, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedReply {
    #[schema(value_type = String)]
    pub(crate) model: ModelName,
    pub(crate) dimension: u32,
    pub(crate) vectors: Vec<Vec<f32>>,
}

/// What is written of types that stand in other rooms: a reference to their own schema.
fn refers(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn sources() -> RefOr<Schema> {
    RefOr::T(ArrayBuilder::new().items(Ref::from_schema_name("Source")).into())
}

fn usage() -> RefOr<Schema> {
    refers("UsageReply")
}

fn finish_reason() -> RefOr<Schema> {
    refers("FinishReason")
}

fn document_status() -> RefOr<Schema> {
    refers("DocumentStatus")
}

fn rating() -> RefOr<Schema> {
    refers("Rating")
}
