//! The outermost layer: names each request, renders errors in the envelope, and writes one log line.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use stepgraph::RunId;
use stepgraph_nodes::trace::{TRACEPARENT, TraceParent, within};
use tokio::time::Instant;
use tracing::Instrument;

use crate::error::{ApiError, ErrorCode};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a caller's own that is echoed.
const REQUEST_ID_BYTES_MAX: usize = 200;

/// The id that a request's run and log lines carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace(pub(crate) RunId);

pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let trace = RunId::random();
    request.extensions_mut().insert(Trace(trace));
    let id = request_id(request.headers().get(REQUEST_ID), trace);
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let began = Instant::now();
    let parent = parent(request.headers());
    let span = tracing::info_span!("request", %trace, %method, path = path.as_deref().unwrap_or("unmatched"));
    async {
        let mut response = within(parent, next.run(request)).await;
        if let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() {
            let mut rendered = error.render(trace);
            rendered
                .headers_mut()
                .extend(std::mem::take(response.headers_mut()).into_iter().filter_map(kept));
            response = rendered;
        }
        response.headers_mut().insert(REQUEST_ID, id);
        tracing::info!(status = response.status().as_u16(), elapsed = ?began.elapsed(), "answered");
        response
    }
    .instrument(span)
    .await
}

/// The caller's own trace. One that is not well formed counts as none, as the standard asks.
pub(crate) fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// The time at which a request comes in: read here, handed down as a value.
#[expect(clippy::disallowed_methods, reason = "the outermost edge of the server")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// What a handler that panicked answers.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::new(ErrorCode::ProcessingError, "something went wrong on our side").into_response()
}

/// Headers that other layers have put on an error before its body was written; those of the empty body stay behind.
fn kept((name, value): (Option<HeaderName>, HeaderValue)) -> Option<(HeaderName, HeaderValue)> {
    name.filter(|name| name != axum::http::header::CONTENT_LENGTH)
        .map(|name| (name, value))
}

fn request_id(sent: Option<&HeaderValue>, trace: RunId) -> HeaderValue {
    match sent {
        Some(id) if (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.to_str().is_ok() => id.clone(),
        Some(_) | None => HeaderValue::try_from(trace.to_string()).unwrap_or(HeaderValue::from_static("unnamed")),
    }
}
