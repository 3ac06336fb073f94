//! Which pages may read answers: decided by the tenant's domains once the tenant is known.
//!
//! A browser's preliminary question carries no key, so nothing is known but the page: it is told that this page may ask.
//! The request itself then is refused, and its answer kept from the page, where the tenant's domains do not cover it.
//! Credentials of the browser are never asked for, and no answer is for all pages.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use stepgraph_nodes::trace::TRACEPARENT;

use super::chat;
use crate::{
    auth::{self, DEPLOYMENT_NOT_ALLOWED},
    error::ApiError,
    limit, trace,
};

/// How long a browser may remember what its preliminary question was answered, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

pub(super) async fn by_tenant(request: Request, next: Next) -> Response {
    let origin = request
        .headers()
        .get(header::ORIGIN)
        .filter(|origin| is_origin(origin))
        .cloned();
    let is_preliminary =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preliminary && origin.is_some() {
        preliminary()
    } else {
        next.run(request).await
    };
    let is_foreign = response
        .extensions()
        .get::<Arc<ApiError>>()
        .is_some_and(|error| error.is_for(DEPLOYMENT_NOT_ALLOWED));
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
    if let Some(origin) = origin.filter(|_| !is_foreign) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, listed(&exposed()));
    }
    response
}

fn preliminary() -> Response {
    let allowed = [
        header::CONTENT_TYPE,
        header::ACCEPT,
        auth::API_KEY,
        trace::REQUEST_ID,
        chat::IDEMPOTENCY_KEY,
        chat::LAST_EVENT_ID,
        HeaderName::from_static(TRACEPARENT),
    ];
    let headers = HeaderMap::from_iter([
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        ),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, listed(&allowed)),
        (header::ACCESS_CONTROL_MAX_AGE, REMEMBERED),
    ]);
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn exposed() -> Vec<HeaderName> {
    let more = [trace::REQUEST_ID, header::RETRY_AFTER];
    limit::HEADERS.into_iter().chain(more).collect()
}

fn listed(names: &[HeaderName]) -> HeaderValue {
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    // Names of headers are valid values by their grammar.
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// What a browser sends: scheme, host and port of a page. The `null` of a page without an address is none.
fn is_origin(value: &HeaderValue) -> bool {
    let uri = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<axum::http::Uri>().ok());
    uri.is_some_and(|uri| {
        uri.scheme().is_some() && uri.host().is_some() && uri.path_and_query().is_none_or(|path| path == "/")
    })
}
