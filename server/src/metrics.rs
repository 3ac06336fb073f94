//! What a collector asks for at `/metrics`: counts and times of what the server did, and how its services are, in the
//! `OpenMetrics` text format.
//!
//! A label that names a tenant is made of its [`TenantId`], so of a tenant that has proved who it is. Labels are few and
//! bounded otherwise: routes as they are declared, statuses, and the codes of the error table.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use stepgraph::TenantId;
use tokio::time::Instant;

use crate::{
    backend::{Answer, ChatFailure},
    error::ErrorCode,
};

/// The media type of what [`Metrics::text`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the classes of times, in seconds; an answer may take 28.
const SECONDS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Stands for the route of a request that matched none.
const UNMATCHED: &str = "unmatched";

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    chats: Family<ChatLabels, Counter>,
    chat_seconds: Histogram,
    tokens: Family<TokenLabels, Counter>,
    counted_alone: Counter,
    up: Family<ServiceLabel, Gauge>,
    models_held_back: Gauge,
    queue_size: Gauge,
    queue_capacity: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChatLabels {
    tenant: Tenant,
    /// `answered`, or the code of the error.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    tenant: Tenant,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: &'static str,
}

/// The one way a tenant becomes a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tenant(TenantId);

impl EncodeLabelValue for Tenant {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.0.as_str())
    }
}

/// How the services are at this moment.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) up: Vec<(&'static str, bool)>,
    pub(crate) models_held_back: usize,
    pub(crate) queue_size: u64,
    pub(crate) queue_capacity: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("stepgraph"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(histogram),
            chats: Family::default(),
            chat_seconds: histogram(),
            tokens: Family::default(),
            counted_alone: Counter::default(),
            up: Family::default(),
            models_held_back: Gauge::default(),
            queue_size: Gauge::default(),
            queue_capacity: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let Self {
            registry,
            requests,
            request_seconds,
            chats,
            chat_seconds,
            tokens,
            counted_alone,
            up,
            models_held_back,
            queue_size,
            queue_capacity,
        } = self;
        registry.register("http_requests", "Requests answered", requests.clone());
        let help = "Time until an answer begins";
        registry.register_with_unit("http_request", help, Unit::Seconds, request_seconds.clone());
        let help = "Chat messages by how they ended: answered, or the code of the error";
        registry.register("chats", help, chats.clone());
        let help = "Time of a chat run, its model's included";
        registry.register_with_unit("chat", help, Unit::Seconds, chat_seconds.clone());
        let help = "Tokens of chats, as the provider counts them; cached ones are among those of the prompt";
        registry.register("chat_tokens", help, tokens.clone());
        let help = "Messages counted against limits in this process alone, since the shared cache was away";
        registry.register("limits_counted_alone", help, counted_alone.clone());
        registry.register("up", "Whether a service answers", up.clone());
        let help = "Models that are not asked for a while, since they have failed too often";
        registry.register("models_held_back", help, models_held_back.clone());
        registry.register("ingest_queue_size", "Documents that wait", queue_size.clone());
        let help = "Documents that may wait at most";
        registry.register("ingest_queue_capacity", help, queue_capacity.clone());
    }

    /// Counts a chat run that is over.
    pub(crate) fn chat(&self, tenant: &TenantId, outcome: Result<&Answer, &ChatFailure>, took: Duration) {
        self.chat_seconds.observe(took.as_secs_f64());
        match outcome {
            Err(failure) => self.count_chat(tenant, failure.code.as_str()),
            Ok(answer) => {
                self.count_chat(tenant, "answered");
                let usage = &answer.usage;
                for (kind, tokens) in [
                    ("prompt", usage.prompt_tokens),
                    ("completion", usage.completion_tokens),
                    ("cached", usage.cached_tokens),
                ] {
                    let tenant = Tenant(tenant.clone());
                    self.tokens.get_or_create(&TokenLabels { tenant, kind }).inc_by(tokens);
                }
            }
        }
    }

    /// Counts a chat message that was refused by its tenant's limit.
    pub(crate) fn chat_limited(&self, tenant: &TenantId) {
        self.count_chat(tenant, ErrorCode::RateLimited.as_str());
    }

    /// Counts a message that only this process knows of, since the shared cache was away.
    pub(crate) fn counted_alone(&self) {
        self.counted_alone.inc();
    }

    fn count_chat(&self, tenant: &TenantId, outcome: &'static str) {
        let tenant = Tenant(tenant.clone());
        self.chats.get_or_create(&ChatLabels { tenant, outcome }).inc();
    }

    /// Everything, as text for a collector.
    pub(crate) fn text(&self, standing: &Standing) -> Result<String, fmt::Error> {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (service, answers) in &standing.up {
            self.up
                .get_or_create(&ServiceLabel { service })
                .set(i64::from(*answers));
        }
        self.models_held_back
            .set(i64::try_from(standing.models_held_back).unwrap_or(i64::MAX));
        self.queue_size.set(gauge(standing.queue_size));
        self.queue_capacity.set(gauge(standing.queue_capacity));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Counts each request once its answer begins.
pub(crate) async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(UNMATCHED, MatchedPath::as_str)
        .to_owned();
    let began = Instant::now();
    let response = next.run(request).await;
    metrics
        .request_seconds
        .get_or_create(&RouteLabel { route: route.clone() })
        .observe(began.elapsed().as_secs_f64());
    let status = response.status().as_u16();
    metrics
        .requests
        .get_or_create(&RequestLabels { method, route, status })
        .inc();
    response
}
