//! What the server answers to, told to programs as `OpenAPI` at `/openapi.json` and to people at `/docs`.
//!
//! The schemas are made from the types that are read and written; the paths from the tables that the routers are made from.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use stepgraph_nodes::service::{DocumentStatus, FinishReason, Rating, Source};
use utoipa::{PartialSchema, ToSchema, openapi::OpenApiVersion};

use super::{
    Route, WIDGET_MOUNT,
    health::{DetailsReply, HealthReply, RootReply, ServicesReply, Status},
};
use crate::{
    error::{ApiError, ErrorCode},
    limit,
    serving::ServedGraph,
    state::VERSION,
    wire::{
        ChatBody, ChatReply, ConfigReply, DeleteReply, DocumentBody, DocumentList, DocumentRow, EmbedBody, EmbedReply,
        FeedbackBody, KeyBody, ProcessReply, StatusReply, SuccessReply, UsageReply, ValidateReply,
    },
};

mod graphs;

const PAGE: &str = include_str!("../../assets/docs.html");

/// Whom a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Anyone,
    /// The holder of a public key, or the internal service.
    Key,
    /// The internal service.
    Secret,
    /// Whom the server's authenticator knows.
    Tenant,
}

/// What a successful answer carries.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// JSON of the schema of this name.
    Named(&'static str),
    /// JSON that the graph decides on.
    Any,
    /// Server-sent events.
    Events,
    /// Metrics as text.
    Metrics,
    /// A page for people.
    Page,
}

/// What a request carries.
#[derive(Debug, Clone, Copy)]
enum Body {
    Nothing,
    Named(&'static str),
}

/// One route as it is told.
#[derive(Debug, Clone)]
pub(super) struct Described {
    method: &'static str,
    path: &'static str,
    access: Access,
    summary: &'static str,
    query: Vec<(&'static str, &'static str)>,
    /// Headers of the request that mean something to this route.
    headers: Vec<(&'static str, &'static str)>,
    /// Whether it counts against the limit of the tenant.
    is_counted: bool,
    body: Body,
    answer: Answer,
}

impl Described {
    const fn new(method: &'static str, path: &'static str, access: Access, summary: &'static str) -> Self {
        Self {
            method,
            path,
            access,
            summary,
            query: Vec::new(),
            headers: Vec::new(),
            is_counted: false,
            body: Body::Nothing,
            answer: Answer::Any,
        }
    }

    pub(super) const fn get(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new("get", path, access, summary)
    }

    pub(super) const fn post(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new("post", path, access, summary)
    }

    pub(super) const fn delete(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new("delete", path, access, summary)
    }

    pub(super) fn query(mut self, query: &[(&'static str, &'static str)]) -> Self {
        self.query = query.to_vec();
        self
    }

    pub(super) fn headers(mut self, headers: &[(&'static str, &'static str)]) -> Self {
        self.headers = headers.to_vec();
        self
    }

    /// It counts against the limit of the tenant, and says what is left of that.
    pub(super) const fn counted(mut self) -> Self {
        self.is_counted = true;
        self
    }

    pub(super) const fn page(mut self) -> Self {
        self.answer = Answer::Page;
        self
    }

    pub(super) const fn body(mut self, schema: &'static str) -> Self {
        self.body = Body::Named(schema);
        self
    }

    pub(super) const fn reply(mut self, schema: &'static str) -> Self {
        self.answer = Answer::Named(schema);
        self
    }

    pub(super) const fn events(mut self) -> Self {
        self.answer = Answer::Events;
        self
    }

    pub(super) const fn metrics(mut self) -> Self {
        self.answer = Answer::Metrics;
        self
    }

    pub(super) const fn path(&self) -> &'static str {
        self.path
    }

    pub(super) const fn access(&self) -> Access {
        self.access
    }

    fn operation(&self) -> Value {
        let answer = match self.answer {
            Answer::Named(name) => json!({"application/json": {"schema": refers(name)}}),
            Answer::Any => json!({"application/json": {"schema": {}}}),
            Answer::Metrics => json!({"application/openmetrics-text": {"schema": {"type": "string"}}}),
            Answer::Events => json!({"text/event-stream": {"schema": {"type": "string"}}}),
            Answer::Page => json!({"text/html": {"schema": {"type": "string"}}}),
        };
        let error = if self.access == Access::Tenant {
            "Detail"
        } else {
            "Error"
        };
        let (done, refused) = self.response_headers();
        let responses = json!({
            "200": {"description": "it is done", "headers": done, "content": answer},
            "default": {
                "description": "it is not, and why",
                "headers": refused,
                "content": {"application/json": {"schema": refers(error)}},
            },
        });
        let mut members = vec![
            ("summary", json!(self.summary)),
            ("parameters", json!(self.parameters())),
            ("responses", responses),
            ("security", self.security()),
        ];
        if let Body::Named(name) = self.body {
            let content = json!({"application/json": {"schema": refers(name)}});
            // The one body that may be left out has its member in the query as well.
            let is_required = self.query.iter().all(|(name, _)| *name != "apiKey");
            members.push(("requestBody", json!({"required": is_required, "content": content})));
        }
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn parameters(&self) -> Vec<Value> {
        let in_path = self
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path =
            in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
        let described = |place: &'static str| move |(name, what): &(&str, &str)| json!({"name": name, "in": place, "description": what, "schema": {"type": "string"}});
        in_path
            .chain(self.query.iter().map(described("query")))
            .chain(self.headers.iter().map(described("header")))
            .collect()
    }

    /// The headers of an answer, and those of an error.
    fn response_headers(&self) -> (Map<String, Value>, Map<String, Value>) {
        let number = |what: &'static str| json!({"description": what, "schema": {"type": "integer"}});
        let mut done = Map::new();
        if self.is_counted {
            let told = [
                "messages of the window",
                "what is left of them",
                "Unix seconds of the next window",
            ];
            for (name, what) in limit::HEADERS.into_iter().zip(told) {
                done.insert(name.as_str().to_owned(), number(what));
            }
        }
        let mut refused = done.clone();
        refused.insert(
            header::RETRY_AFTER.as_str().to_owned(),
            number("seconds to stay away, where that is known"),
        );
        (done, refused)
    }

    fn security(&self) -> Value {
        match self.access {
            Access::Anyone => json!([]),
            Access::Key => json!([{"key": []}, {"secret": []}]),
            Access::Secret => json!([{"secret": []}]),
            Access::Tenant => json!([{"key": []}, {"bearer": []}]),
        }
    }
}

fn refers(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The document of all routes of the given tables, with the schemas of the graphs that are served.
pub(super) fn document<P, G>(
    product: Option<Vec<Route<P>>>,
    graphs: Option<Vec<Route<G>>>,
    served: &[Arc<dyn ServedGraph>],
) -> Bytes {
    let product = product.into_iter().flatten().map(|route| route.doc);
    let mut schemas = schemas();
    if graphs.is_some() {
        schemas.extend(graphs::components(served));
    }
    let graphs = graphs.into_iter().flatten().map(|route| route.doc);
    let own = [
        Described::get("/openapi.json", Access::Anyone, "This document"),
        Described::get("/docs", Access::Anyone, "This document as a page").page(),
    ];
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in product.chain(graphs).chain(own) {
        let operations = paths.entry(route.path).or_default();
        operations.insert(route.method.to_owned(), route.operation());
    }
    let document = json!({
        "openapi": OpenApiVersion::Version31,
        "info": {
            "title": "Stepgraph",
            "version": VERSION,
            "description": format!(
                "The routes of the widget's interface stand at `/` and at `{WIDGET_MOUNT}`. Members are written in \
                 camelCase and read in snake_case, too."
            ),
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "secret": {"type": "apiKey", "in": "header", "name": "X-Internal-Secret"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }},
    });
    document.to_string().into()
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |(name, schema): (String, Value)| {
        schemas.insert(name, schema);
    };
    for schema in [
        written::<ChatBody>(),
        written::<ChatReply<'_>>(),
        written::<UsageReply<'_>>(),
        written::<FeedbackBody>(),
        written::<SuccessReply>(),
        written::<DocumentBody>(),
        written::<ProcessReply>(),
        written::<StatusReply>(),
        written::<DocumentList>(),
        written::<DocumentRow>(),
        written::<DeleteReply>(),
        written::<EmbedBody>(),
        written::<EmbedReply>(),
        written::<KeyBody>(),
        written::<ValidateReply>(),
        written::<ConfigReply>(),
        written::<HealthReply>(),
        written::<ServicesReply>(),
        written::<DetailsReply>(),
        written::<Status>(),
        written::<RootReply>(),
        written::<ErrorCode>(),
        below::<Source>("Source"),
        below::<FinishReason>("FinishReason"),
        below::<DocumentStatus>("DocumentStatus"),
        below::<Rating>("Rating"),
    ] {
        add(schema);
    }
    add(("Error".to_owned(), envelope()));
    add(("Detail".to_owned(), detail()));
    schemas
}

/// The envelope of the contract, as `ApiError::render` writes it.
fn envelope() -> Value {
    json!({
        "type": "object",
        "required": ["error", "traceId"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": refers(&ErrorCode::name()),
                    "message": {"type": "string"},
                    "details": {"type": "object"},
                },
            },
            "traceId": {"type": "string", "format": "uuid"},
        },
    })
}

/// The error of the graph interface, as `ApiError::render_detail` writes it.
fn detail() -> Value {
    json!({
        "type": "object",
        "required": ["detail", "code"],
        "properties": {"detail": {"type": "string"}, "code": {"type": "string"}},
    })
}

/// The schema of a type of this room.
fn written<T: ToSchema + PartialSchema>() -> (String, Value) {
    let schema = serde_json::to_value(T::schema()).unwrap_or_default();
    (T::name().into_owned(), schema)
}

/// The schema of a type of a room below.
fn below<T: JsonSchema>(name: &str) -> (String, Value) {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    (
        name.to_owned(),
        settings.into_generator().into_root_schema_for::<T>().into(),
    )
}

/// The document and its page. The page loads nothing from elsewhere.
pub(super) fn router<S: Clone + Send + Sync + 'static>(document: &Bytes) -> Router<S> {
    let document = document.clone();
    let page = async || {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let headers = [
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ];
        (headers, Html(PAGE.replace("__NONCE__", &nonce))).into_response()
    };
    Router::new()
        .route(
            "/openapi.json",
            get(async move || ([(header::CONTENT_TYPE, "application/json")], document)),
        )
        .route("/docs", get(page))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
}
