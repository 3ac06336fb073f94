//! The graph interface: `/threads`, `/assistants`, `/ok` and `/info`. Its errors are `{"detail"}`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use stepgraph::TenantId;
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};

use crate::{
    auth,
    error::ApiError,
    serving::{Refusal, Serving, body::GRAPH_BODY_BYTES_MAX},
    state::VERSION,
    trace,
};

mod assistants;
mod runs;
mod threads;

const PAGINATION_TOTAL: HeaderName = HeaderName::from_static("x-pagination-total");
const PAGINATION_NEXT: HeaderName = HeaderName::from_static("x-pagination-next");

/// Every route of the interface; pages of these origins may call it.
pub(super) fn router(serving: Arc<Serving>, origins: &[HeaderValue]) -> Router {
    let routes = Router::new()
        .route("/ok", get(ok))
        .route("/info", get(info))
        .route("/assistants/search", post(assistants::search))
        .route("/assistants/count", post(assistants::count))
        .route("/assistants/{id}", get(assistants::one))
        .route("/assistants/{id}/graph", get(assistants::graph))
        .route("/assistants/{id}/schemas", get(assistants::schemas))
        .route("/threads", post(threads::create))
        .route("/threads/{id}", get(threads::one))
        .route("/threads/{id}/state", get(threads::state).post(threads::edit))
        .route("/threads/{id}/state/checkpoint", post(threads::state_of))
        .route("/threads/{id}/state/{checkpoint}", get(threads::state_at))
        .route(
            "/threads/{id}/history",
            get(threads::history_by_query).post(threads::history),
        )
        .route("/threads/{id}/runs/wait", post(runs::wait))
        .route("/threads/{id}/runs/stream", post(runs::stream))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(DefaultBodyLimit::max(GRAPH_BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(trace::panicked as fn(_) -> Response))
        .layer(middleware::from_fn(detail));
    let routes = if origins.is_empty() {
        routes
    } else {
        routes.layer(cors(origins))
    };
    routes.with_state(serving)
}

/// Gives errors the face of this interface.
async fn detail(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Arc<ApiError>>() {
        Some(error) => error.render_detail(),
        None => response,
    }
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            auth::API_KEY,
            super::chat::LAST_EVENT_ID,
        ])
        .expose_headers([
            PAGINATION_TOTAL,
            PAGINATION_NEXT,
            header::CONTENT_LOCATION,
            header::LOCATION,
        ])
        .allow_private_network(true)
}

async fn ok() -> Json<Value> {
    Json(json!({"ok": true}))
}

async fn info() -> Json<Value> {
    Json(json!({
        "version": VERSION,
        "flags": {"assistants": true, "crons": false, "langsmith": false},
        "host": {"kind": "self-hosted"},
    }))
}

/// Whose call it is, as the server's authenticator says.
pub(crate) struct Tenant(TenantId);

impl FromRequestParts<Arc<Serving>> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, serving: &Arc<Serving>) -> Result<Self, ApiError> {
        match serving.authenticator.tenant(&parts.headers).await {
            Ok(tenant) => Ok(Self(tenant)),
            Err(Refusal(error)) => Err(error),
        }
    }
}
