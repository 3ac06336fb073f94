//! Documents: taken in, looked after, deleted. For the internal service alone.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Reply,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use stepgraph::TenantId;
use stepgraph_nodes::service::{Client, Document, DocumentId, DocumentStatus, FileType, ServiceError, Tier};
use tokio::time::Instant;

use super::{Json, Params};
use crate::{
    auth::{Internal, named_client},
    error::{ApiError, ErrorCode},
    jobs::IngestJob,
    limit::documents_max,
    state::App,
    trace,
    wire::{
        DOCUMENT_BYTES_MAX, DeleteReply, DocumentBody, DocumentList, ListQuery, NAME_CHARS_MAX, ProcessReply,
        StatusReply, TenantQuery,
    },
};

/// Documents in one list, unless the caller asks for fewer.
const PAGE_DEFAULT: u32 = 20;
/// Most documents in one list.
const PAGE_MAX: u32 = 100;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `POST /process-document`: takes a document in and waits a while for the result.
pub(crate) async fn process(
    State(app): State<Arc<App>>,
    _: Internal,
    headers: HeaderMap,
    Json(body): Json<DocumentBody>,
) -> Result<Reply<ProcessReply>, ApiError> {
    let began = Instant::now();
    let client = named_client(&*app.backend.clients, Some(&body.client_id)).await?;
    let id = document_id(&body.document_id)?;
    check_name(&body.original_name)?;
    let file_type = file_type(&body.file_type)?;
    let (bytes, name) = decoded(body).await?;
    let document = {
        let _one_at_a_time = app.accepting.lock().await;
        check_quota(&app, &client, &id).await?;
        app.backend
            .documents
            .accept(&client.tenant, &id, &name, file_type, &bytes)
            .await?
    };
    drop(bytes);
    let tenant = client.tenant;
    if document.status != DocumentStatus::Completed {
        let job = IngestJob::new(tenant.clone(), id, document.version).traced(trace::parent(&headers));
        app.backend.dispatch.enqueue(&job).await?;
    }
    let document = app
        .ingestions
        .settled(&tenant, document, app.settings.document_wait)
        .await?;
    Ok(Reply(processed(document, began.elapsed())))
}

/// `GET /documents/{id}/status`.
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    _: Internal,
    path: Result<Path<String>, PathRejection>,
    Params(query): Params<TenantQuery>,
) -> Result<Reply<StatusReply>, ApiError> {
    let id = path_id(path)?;
    let tenant = match query.client_id {
        Some(client) => named_client(&*app.backend.clients, Some(&client)).await?.tenant,
        None => only_owner(&app, &id).await?,
    };
    let document = app.backend.documents.get(&tenant, &id).await?.ok_or_else(unknown)?;
    Ok(Reply(document.into()))
}

/// `GET /documents`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _: Internal,
    Params(query): Params<ListQuery>,
) -> Result<Reply<DocumentList>, ApiError> {
    let tenant = named_client(&*app.backend.clients, query.client_id.as_deref())
        .await?
        .tenant;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("`limit` must be 1 to {PAGE_MAX}")));
    }
    let page = app
        .backend
        .documents
        .list(&tenant, limit, query.cursor.as_deref())
        .await;
    let page = page.map_err(|error| match error {
        ServiceError::Refused { message, .. } => ApiError::invalid("cursor", message),
        other => other.into(),
    })?;
    let documents = page.documents.into_iter().map(Into::into).collect();
    Ok(Reply(DocumentList {
        documents,
        next_cursor: page.next_cursor,
    }))
}

/// `DELETE /documents/{id}`: gone from answers when this returns.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    _: Internal,
    path: Result<Path<String>, PathRejection>,
    Params(query): Params<TenantQuery>,
) -> Result<Reply<DeleteReply>, ApiError> {
    let id = path_id(path)?;
    let tenant = named_client(&*app.backend.clients, query.client_id.as_deref())
        .await?
        .tenant;
    let existed = app.backend.documents.delete(&tenant, &id).await?;
    // Without its record an ingestion under way cannot go on; what it has stored until it noticed is removed after it.
    app.ingestions.stopped(&tenant, &id).await;
    let points_deleted = app.backend.vectors.delete(&tenant, &id).await?;
    if existed || points_deleted > 0 {
        Ok(Reply(DeleteReply {
            success: true,
            points_deleted,
        }))
    } else {
        Err(unknown())
    }
}

fn processed(document: Document, elapsed: Duration) -> ProcessReply {
    let (done, failed) = (
        document.status == DocumentStatus::Completed,
        document.status == DocumentStatus::Failed,
    );
    ProcessReply {
        success: !failed,
        document_id: document.id.as_str().to_owned(),
        chunks_created: document.chunks_total.filter(|_| done).unwrap_or_default(),
        qdrant_point_ids: if done { document.point_ids } else { Vec::new() },
        processing_time_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        error_code: document.error_code.filter(|_| failed),
        error_message: document.error_message.filter(|_| failed),
    }
}

/// The bytes of the file and its name. Decoding 13 MB takes milliseconds: not on a thread that serves others.
async fn decoded(body: DocumentBody) -> Result<(Vec<u8>, String), ApiError> {
    let too_large = || {
        let message = format!("the file is larger than {} MB", DOCUMENT_BYTES_MAX / 1024 / 1024);
        ApiError::invalid("file_too_large", message).detail("limitBytes", DOCUMENT_BYTES_MAX)
    };
    // Four characters carry three bytes: what cannot fit is not decoded.
    if body.file_data.len() / 4 > DOCUMENT_BYTES_MAX / 3 + 1 {
        return Err(too_large());
    }
    let (data, name) = (body.file_data, body.original_name);
    let decoded = tokio::task::spawn_blocking(move || BASE64.decode(data)).await;
    let bytes = match decoded {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            return Err(ApiError::invalid(
                "invalid_base64",
                format!("`fileData` is not base64: {error}"),
            ));
        }
        Err(_) => {
            return Err(ApiError::new(
                ErrorCode::ProcessingError,
                "something went wrong on our side",
            ));
        }
    };
    match bytes.len() {
        0 => Err(ApiError::invalid("empty_file", "the file is empty")),
        length if length > DOCUMENT_BYTES_MAX => Err(too_large()),
        _ => Ok((bytes, name)),
    }
}

async fn check_quota(app: &App, client: &Client, id: &DocumentId) -> Result<(), ApiError> {
    let known = app.backend.documents.get(&client.tenant, id).await?;
    if known.is_some_and(|document| document.status != DocumentStatus::Failed) {
        return Ok(());
    }
    let limit = documents_max(&app.settings.limits, client);
    let count = app.backend.documents.count(&client.tenant).await?;
    if count < limit {
        return Ok(());
    }
    let message = format!("the plan holds {limit} documents and all are used: delete one or upgrade");
    let error = ApiError::new(ErrorCode::QuotaExceeded, message)
        .detail("reason", "DOCUMENT_LIMIT")
        .detail("limit", limit);
    Err(match &app.settings.upgrade_url {
        Some(url) if client.tier == Tier::Free => error.detail("upgradeUrl", url.as_str()),
        Some(_) | None => error,
    })
}

async fn only_owner(app: &App, id: &DocumentId) -> Result<TenantId, ApiError> {
    match app.backend.documents.owners(id).await?.as_slice() {
        [] => Err(unknown()),
        [owner] => Ok(owner.clone()),
        [_, ..] => Err(ApiError::invalid(
            "ambiguous_document",
            "several clients have a document of this id: name one in `clientId`",
        )),
    }
}

fn path_id(path: Result<Path<String>, PathRejection>) -> Result<DocumentId, ApiError> {
    let Ok(Path(id)) = path else { return Err(unknown()) };
    document_id(&id)
}

fn document_id(id: &str) -> Result<DocumentId, ApiError> {
    if is_name(id) {
        Ok(DocumentId::new(id))
    } else {
        Err(ApiError::invalid(
            "document_id",
            format!("`documentId` must have 1 to {NAME_CHARS_MAX} printable characters"),
        ))
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if is_name(name) {
        Ok(())
    } else {
        let message = format!("`originalName` must have 1 to {NAME_CHARS_MAX} printable characters");
        Err(ApiError::invalid("original_name", message))
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn file_type(name: &str) -> Result<FileType, ApiError> {
    match name.to_ascii_lowercase().as_str() {
        "pdf" => Ok(FileType::Pdf),
        "docx" => Ok(FileType::Docx),
        "txt" => Ok(FileType::Txt),
        "csv" => Ok(FileType::Csv),
        _ => Err(ApiError::invalid(
            "unsupported_type",
            "`fileType` must be pdf, docx, txt or csv",
        )),
    }
}

fn unknown() -> ApiError {
    ApiError::not_found("unknown_document", "there is no such document")
}
