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

use super::{
    Route,
    openapi::{Access, Described},
    route,
};
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
    let routes = super::collected(table())
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

/// The routes of the interface.
pub(super) fn table() -> Vec<Route<Arc<Serving>>> {
    let mut routes = assistant_routes();
    routes.extend(thread_routes());
    routes
}

const fn read(path: &'static str, summary: &'static str) -> Described {
    Described::get(path, Access::Tenant, summary)
}

const fn write(path: &'static str, summary: &'static str, body: &'static str) -> Described {
    Described::post(path, Access::Tenant, summary).body(body)
}

fn assistant_routes() -> Vec<Route<Arc<Serving>>> {
    vec![
        route(
            Described::get("/ok", Access::Anyone, "Tells that the server lives"),
            get(ok),
        ),
        route(
            Described::get("/info", Access::Anyone, "Tells what the server can do"),
            get(info),
        ),
        route(
            write("/assistants/search", "Lists graphs", "AssistantQuery"),
            post(assistants::search),
        ),
        route(
            write("/assistants/count", "Counts graphs", "AssistantQuery"),
            post(assistants::count),
        ),
        route(read("/assistants/{id}", "Tells of a graph"), get(assistants::one)),
        route(read("/assistants/{id}/graph", "Draws a graph"), get(assistants::graph)),
        route(
            read("/assistants/{id}/schemas", "Tells the schemas of a graph").reply("GraphSchemas"),
            get(assistants::schemas),
        ),
    ]
}

fn thread_routes() -> Vec<Route<Arc<Serving>>> {
    vec![
        route(
            write("/threads", "Makes a thread", "NewThread").reply("Thread"),
            post(threads::create),
        ),
        route(
            read("/threads/{id}", "Tells of a thread").reply("Thread"),
            get(threads::one),
        ),
        route(
            read("/threads/{id}/state", "Tells the state of a thread").reply("ThreadState"),
            get(threads::state),
        ),
        route(
            write("/threads/{id}/state", "Edits the state of a thread", "ThreadEdit"),
            post(threads::edit),
        ),
        route(
            write(
                "/threads/{id}/state/checkpoint",
                "Tells the state at a checkpoint",
                "CheckpointQuery",
            )
            .reply("ThreadState"),
            post(threads::state_of),
        ),
        route(
            read("/threads/{id}/state/{checkpoint}", "Tells the state at a checkpoint").reply("ThreadState"),
            get(threads::state_at),
        ),
        route(
            read("/threads/{id}/history", "Lists the checkpoints of a thread")
                .query(&[("limit", "1 to 1000"), ("before", "the id of a checkpoint")])
                .reply("History"),
            get(threads::history_by_query),
        ),
        route(
            write(
                "/threads/{id}/history",
                "Lists the checkpoints of a thread",
                "HistoryQuery",
            )
            .reply("History"),
            post(threads::history),
        ),
        route(
            write("/threads/{id}/runs/wait", "Runs a graph to its end", "Run").reply("RunValues"),
            post(runs::wait),
        ),
        route(
            write(
                "/threads/{id}/runs/stream",
                "Runs a graph and streams its events",
                "Run",
            )
            .events(),
            post(runs::stream),
        ),
    ]
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
