//! Texts in, vectors out, for the internal service.

use std::sync::Arc;

use axum::{Json as Reply, extract::State};
use stepgraph_nodes::service::Purpose;

use super::Json;
use crate::{
    auth::{Internal, named_client},
    error::{ApiError, ErrorCode},
    state::App,
    wire::{EmbedBody, EmbedReply},
};

/// `POST /embed`: a vector for each text, as documents are stored with.
pub(crate) async fn vectors(
    State(app): State<Arc<App>>,
    _: Internal,
    Json(body): Json<EmbedBody>,
) -> Result<Reply<EmbedReply>, ApiError> {
    let client = named_client(&*app.backend.clients, Some(&body.client_id)).await?;
    body.validate()?;
    let Some(embedder) = &app.backend.embedder else {
        return Err(ApiError::invalid(
            "no_embedding_model",
            "this server makes no vectors: set EMBEDDING_MODEL and a provider",
        ));
    };
    let vectors = embedder.embed(&client.tenant, Purpose::Document, &body.texts).await?;
    if vectors.len() != body.texts.len() {
        tracing::error!(
            sent = body.texts.len(),
            got = vectors.len(),
            "the embedding model left texts out"
        );
        return Err(ApiError::new(
            ErrorCode::ProcessingError,
            "something went wrong on our side",
        ));
    }
    Ok(Reply(EmbedReply {
        model: embedder.model().clone(),
        dimension: embedder.dimension(),
        vectors,
    }))
}
