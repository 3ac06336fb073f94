//! Assistants: one for each graph that is served.

use super::{Arc, IntoResponse, Json, PAGINATION_NEXT, PAGINATION_TOTAL, Response, Serving, State, Tenant, Value};
use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue},
};

use crate::{
    error::ApiError,
    serving::{
        body::{AssistantQuery, Body},
        shape,
    },
};

/// Most assistants in one answer.
const PAGE_MAX: usize = 1_000;

/// The names of the graphs whose assistants are asked for.
fn found(serving: &Serving, query: &AssistantQuery) -> Vec<String> {
    let metadata = shape::assistant_metadata();
    let has_metadata = query
        .metadata
        .iter()
        .all(|(name, value)| metadata.get(name) == Some(value));
    let is_named = |name: &str| {
        let is_graph = query.graph_id.as_deref().is_none_or(|graph| graph == name);
        // As in the reference, a name is found by any part of it.
        is_graph
            && query
                .name
                .as_deref()
                .is_none_or(|part| name.to_lowercase().contains(&part.to_lowercase()))
    };
    let names = serving.graphs.iter().map(|graph| graph.name());
    names
        .filter(|name| has_metadata && is_named(name))
        .map(str::to_owned)
        .collect()
}

/// `POST /assistants/search`.
pub(super) async fn search(
    State(serving): State<Arc<Serving>>,
    _: Tenant,
    Body(query): Body<AssistantQuery>,
) -> Result<Response, ApiError> {
    if query.limit == 0 || query.limit > PAGE_MAX {
        return Err(ApiError::unfit("limit", format!("`limit` must be 1 to {PAGE_MAX}")));
    }
    let found = found(&serving, &query);
    let end = query.offset.saturating_add(query.limit);
    let page = found.iter().skip(query.offset).take(query.limit);
    let page: Vec<Value> = page.map(|name| shape::assistant(name, serving.since)).collect();
    let mut headers = HeaderMap::new();
    headers.insert(PAGINATION_TOTAL, HeaderValue::from(found.len()));
    if end < found.len() {
        headers.insert(PAGINATION_NEXT, HeaderValue::from(end));
    }
    Ok((headers, Json(page)).into_response())
}

/// `POST /assistants/count`.
pub(super) async fn count(
    State(serving): State<Arc<Serving>>,
    _: Tenant,
    Body(query): Body<AssistantQuery>,
) -> Json<usize> {
    Json(found(&serving, &query).len())
}

/// `GET /assistants/{id}`.
pub(super) async fn one(
    State(serving): State<Arc<Serving>>,
    _: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let graph = serving.assistant(&id)?;
    Ok(Json(shape::assistant(graph.name(), serving.since)))
}

/// `GET /assistants/{id}/graph`.
pub(super) async fn graph(
    State(serving): State<Arc<Serving>>,
    _: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(shape::drawing(&serving.assistant(&id)?.outline())))
}

/// `GET /assistants/{id}/schemas`.
pub(super) async fn schemas(
    State(serving): State<Arc<Serving>>,
    _: Tenant,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let graph = serving.assistant(&id)?;
    Ok(Json(shape::schemas(graph.name(), graph.schemas())))
}
