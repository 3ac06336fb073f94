//! One file per resource.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request},
    http::{HeaderValue, request::Parts},
    middleware,
    response::Response,
    routing::{MethodRouter, delete, get, post},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    demo,
    error::ApiError,
    metrics,
    serving::Serving,
    state::App,
    trace,
    wire::{CHAT_BODY_BYTES_MAX, DOCUMENT_BODY_BYTES_MAX, EMBED_BODY_BYTES_MAX},
};

use body::parsed;
use openapi::{Access, Described};

mod body;
pub(crate) mod chat;
pub(crate) mod clients;
mod cors;
pub(crate) mod documents;
mod embed;
mod feedback;
mod graphs;
pub(crate) mod health;
mod openapi;

/// The prefix of the second mount.
const WIDGET_MOUNT: &str = "/api/widget";
const WIDGET_MOUNT_SLASH: &str = "/api/widget/";

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
    let document = openapi::document(
        rooms.app.is_some().then(table),
        rooms.serving.is_some().then(graphs::table),
        rooms.serving.as_ref().map_or(&[], |serving| serving.graphs.as_slice()),
    );
    root = root.merge(openapi::router(&document));
    if rooms.app.is_some() {
        root = root.nest(WIDGET_MOUNT, openapi::router(&document));
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
    // A nested `/` answers without the slash alone.
    root.route(WIDGET_MOUNT_SLASH, get(health::root))
        .nest(WIDGET_MOUNT, contract())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(Arc::clone(app))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app.backend.metrics),
            metrics::observe,
        ))
}

fn contract() -> Router<Arc<App>> {
    let (internal, public) = table()
        .into_iter()
        .partition(|route| route.doc.access() == Access::Secret);
    // Set before the layer, which answers a browser's preliminary question in its place.
    let public = collected(public)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(middleware::from_fn(cors::by_tenant));
    public.merge(collected(internal))
}

/// A route and what is told of it.
struct Route<S> {
    doc: Described,
    handler: MethodRouter<S>,
}

/// Router and description are both made from such tables, so that neither has a route that the other lacks.
fn collected<S: Clone + Send + Sync + 'static>(routes: Vec<Route<S>>) -> Router<S> {
    let routes = routes.into_iter();
    routes.fold(Router::new(), |router, route| {
        router.route(route.doc.path(), route.handler)
    })
}

/// Every route of the contract. Those that are not for the internal service alone browsers may call from pages of other
/// origins.
fn table() -> Vec<Route<Arc<App>>> {
    let mut routes = chat_routes();
    routes.extend(document_routes());
    routes.extend(operator_routes());
    routes
}

fn route<S>(doc: Described, handler: MethodRouter<S>) -> Route<S> {
    Route { doc, handler }
}

fn chat_routes() -> Vec<Route<Arc<App>>> {
    let chat_body = || DefaultBodyLimit::max(CHAT_BODY_BYTES_MAX);
    let name = (
        "Idempotency-Key",
        "a name of the request, by which a repeat within 24 hours gets the same answer",
    );
    let last = (
        "Last-Event-ID",
        "the last event that was read, in the `json` dialect: the rest follows",
    );
    vec![
        route(
            Described::post("/chat", Access::Key, "Answers a message")
                .headers(&[name])
                .counted()
                .body("ChatBody")
                .reply("ChatReply"),
            post(chat::answer).layer(chat_body()),
        ),
        route(
            Described::post("/chat/stream", Access::Key, "Answers a message as a stream of events")
                .query(&[(
                    "dialect",
                    "`text`, or `json` for chunks with ids that a reader can resume behind",
                )])
                .headers(&[name, last])
                .counted()
                .body("ChatBody")
                .events(),
            post(chat::stream).layer(chat_body()),
        ),
        route(
            Described::post("/feedback", Access::Key, "Rates an answer")
                .body("FeedbackBody")
                .reply("SuccessReply"),
            post(feedback::rate).layer(chat_body()),
        ),
    ]
}

fn document_routes() -> Vec<Route<Arc<App>>> {
    let document_body = DefaultBodyLimit::max(DOCUMENT_BODY_BYTES_MAX);
    let tenant = ("clientId", "the tenant it is about");
    vec![
        route(
            Described::post("/process-document", Access::Secret, "Takes a document in")
                .body("DocumentBody")
                .reply("ProcessReply"),
            post(documents::process).layer(document_body),
        ),
        route(
            Described::get("/documents", Access::Secret, "Lists a tenant's documents")
                .query(&[
                    tenant,
                    ("limit", "1 to 100"),
                    ("cursor", "`nextCursor` of the page before"),
                ])
                .reply("DocumentList"),
            get(documents::list),
        ),
        route(
            Described::delete("/documents/{id}", Access::Secret, "Deletes a document")
                .query(&[tenant])
                .reply("DeleteReply"),
            delete(documents::delete),
        ),
        route(
            Described::get(
                "/documents/{id}/status",
                Access::Secret,
                "Tells how far a document has come",
            )
            .query(&[tenant])
            .reply("StatusReply"),
            get(documents::status),
        ),
    ]
}

fn operator_routes() -> Vec<Route<Arc<App>>> {
    let embed_body = DefaultBodyLimit::max(EMBED_BODY_BYTES_MAX);
    vec![
        route(
            Described::post("/embed", Access::Secret, "Makes vectors of texts")
                .body("EmbedBody")
                .reply("EmbedReply"),
            post(embed::vectors).layer(embed_body),
        ),
        route(
            Described::post(
                "/internal/validate-client",
                Access::Secret,
                "Tells whose a public key is",
            )
            .query(&[("apiKey", "the key, where the body has none")])
            .body("KeyBody")
            .reply("ValidateReply"),
            post(clients::validate),
        ),
        route(
            Described::get(
                "/internal/client/{id}/config",
                Access::Secret,
                "Tells how a client is served",
            )
            .reply("ConfigReply"),
            get(clients::config),
        ),
        route(
            Described::get(
                "/health",
                Access::Anyone,
                "Tells whether the server and its services answer",
            )
            .reply("HealthReply"),
            get(health::health),
        ),
        route(
            Described::get("/metrics", Access::Secret, "Counts and times for a collector").metrics(),
            get(health::metrics),
        ),
        route(
            Described::get("/", Access::Anyone, "Tells what this server is").reply("RootReply"),
            get(health::root),
        ),
    ]
}

/// How long a caller may take to send its body: the existing client gives the whole call 30 seconds.
const BODY_TIME_MAX: Duration = Duration::from_mins(1);

/// A JSON body within the route's limits of size and time. What is wrong with it is told in the envelope.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let unreadable = |message| ApiError::invalid("body_unreadable", message);
        let read = timeout(BODY_TIME_MAX, Bytes::from_request(request, state)).await;
        let read = read.map_err(|_| unreadable("the request body took too long to come"))?;
        let bytes = read.map_err(|rejection| {
            if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::invalid("body_too_large", "the request body is too large")
            } else {
                unreadable("the request body could not be read")
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;
    use crate::wire::ChatBody;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_waited_for_no_longer_than_its_time() {
        let never = stream::pending::<Result<Bytes, std::io::Error>>();
        let began = tokio::time::Instant::now();

        let read = Json::<ChatBody>::from_request(Request::new(Body::from_stream(never)), &()).await;

        assert!(read.is_err_and(|error| error.is_for("body_unreadable")));
        assert_eq!(began.elapsed().as_secs(), BODY_TIME_MAX.as_secs());
    }
}
