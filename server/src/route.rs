//! One file per resource.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request},
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    middleware,
    response::Response,
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};

use crate::{
    auth, demo,
    error::ApiError,
    limit,
    serving::Serving,
    state::App,
    trace,
    wire::{CHAT_BODY_BYTES_MAX, DOCUMENT_BODY_BYTES_MAX},
};

pub(crate) mod chat;
pub(crate) mod clients;
pub(crate) mod documents;
mod graphs;
pub(crate) mod health;

/// The prefix of the second mount.
const WIDGET_MOUNT: &str = "/api/widget";

/// What a server answers with.
pub(crate) struct Rooms {
    /// The product, where there is one.
    pub(crate) app: Option<Arc<App>>,
    /// Graphs as threads and runs, where any is registered.
    pub(crate) serving: Option<Arc<Serving>>,
    /// Origins of pages that may call the graph interface.
    pub(crate) origins: Vec<HeaderValue>,
    /// Routes of the host program.
    pub(crate) merged: Vec<Router>,
}

/// The whole server.
pub(crate) fn router(rooms: &Rooms) -> Router {
    let mut root = Router::new();
    if let Some(app) = &rooms.app {
        root = root.merge(product(app));
    }
    if let Some(serving) = &rooms.serving {
        root = root.merge(graphs::router(Arc::clone(serving), &rooms.origins));
    }
    for routes in &rooms.merged {
        root = root.merge(routes.clone());
    }
    root.fallback(async || ApiError::not_found("unknown_route", "there is nothing at this address"))
        .layer(CatchPanicLayer::custom(trace::panicked as fn(_) -> Response))
        .layer(middleware::from_fn(trace::observe))
}

/// The widget's interface: every route at both mounts.
fn product(app: &Arc<App>) -> Router {
    let mut root = Router::new().merge(contract());
    if app.settings.demo.is_some() {
        root = root.route("/demo", get(demo::page));
    }
    root.nest(WIDGET_MOUNT, contract())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(Arc::clone(app))
}

fn contract() -> Router<Arc<App>> {
    Router::new()
        .merge(public())
        .route(
            "/process-document",
            post(documents::process).layer(DefaultBodyLimit::max(DOCUMENT_BODY_BYTES_MAX)),
        )
        .route("/documents", get(documents::list))
        .route("/documents/{id}", axum::routing::delete(documents::delete))
        .route("/documents/{id}/status", get(documents::status))
        .route("/internal/validate-client", post(clients::validate))
}

/// What browsers may call from pages of other origins. The public key says who pays, the tenant's list of domains
/// which pages may use it.
fn public() -> Router<Arc<App>> {
    let exposed = limit::HEADERS
        .into_iter()
        .chain([trace::REQUEST_ID, header::RETRY_AFTER]);
    let cors = CorsLayer::new()
        .allow_origin(tower_http::cors::Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::ACCEPT,
            auth::API_KEY,
            trace::REQUEST_ID,
            chat::IDEMPOTENCY_KEY,
            chat::LAST_EVENT_ID,
        ])
        .expose_headers(exposed.collect::<Vec<HeaderName>>());
    Router::new()
        .route(
            "/chat",
            post(chat::answer).layer(DefaultBodyLimit::max(CHAT_BODY_BYTES_MAX)),
        )
        .route(
            "/chat/stream",
            post(chat::stream).layer(DefaultBodyLimit::max(CHAT_BODY_BYTES_MAX)),
        )
        .route("/health", get(health::health))
        .route("/", get(health::root))
        // Set before the layer, which answers a browser's preliminary question in its place.
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(cors)
}

/// A JSON body within the route's limit. What is wrong with it is told in the envelope.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::invalid("body_too_large", "the request body is too large")
            } else {
                ApiError::invalid("body_unreadable", "the request body could not be read")
            }
        })?;
        parsed(&bytes).map(Self)
    }
}

/// A query string. What is wrong with it is told in the envelope.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(ApiError::invalid("query", rejection.body_text())),
        }
    }
}

pub(crate) fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::invalid("body", format!("the JSON body is wrong: {error}")))
}
