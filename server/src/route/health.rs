//! Whether the server and the services under it answer.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::SecondsFormat;
use futures_util::future::join_all;
use serde::Serialize;
use stepgraph_nodes::service::{CacheState, ServiceError};
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

use crate::{
    auth::Operator,
    backend::Backend,
    error::{ApiError, ErrorCode},
    metrics::{CONTENT_TYPE, Standing},
    state::{App, VERSION},
    trace,
};

/// How long a service may take to say that it lives.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// How long a result serves all who ask: the address is open to everyone, and a ping may go to a provider.
const FRESH: Duration = Duration::from_secs(5);

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Healthy,
    Degraded,
    Unhealthy,
}

/// Answer of `/`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RootReply {
    service: &'static str,
    version: &'static str,
    status: &'static str,
}

/// Answer of `/health`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthReply {
    status: Status,
    /// ISO 8601, in UTC.
    timestamp: String,
    version: &'static str,
    queue_size: u64,
    queue_capacity: u64,
    services: ServicesReply,
    details: DetailsReply,
}

/// Which services answer.
#[expect(clippy::struct_excessive_bools, reason = "the contract has one for each service")]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServicesReply {
    qdrant: bool,
    redis: bool,
    anthropic: bool,
    openai: bool,
}

/// What stands behind each.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DetailsReply {
    qdrant: &'static str,
    redis: &'static str,
    anthropic: &'static str,
    openai: &'static str,
    /// Models that are not asked for a while, since they have failed too often.
    held_back: Vec<String>,
    database: &'static str,
}

/// The last result.
#[derive(Default)]
pub(crate) struct HealthCheck(Mutex<Option<(Instant, Found)>>);

#[derive(Debug, Clone)]
struct Found {
    records: bool,
    vectors: bool,
    cache: CacheState,
    queue: Option<u64>,
    models: Vec<(&'static str, bool)>,
    /// Models that are not asked for a while, since they have failed too often.
    held_back: Vec<String>,
}

pub(crate) async fn root(State(_): State<Arc<App>>) -> Json<RootReply> {
    Json(RootReply {
        service: "stepgraph",
        version: VERSION,
        status: "running",
    })
}

pub(crate) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<HealthReply>) {
    let found = app.health.found(&app.backend).await;
    let status = found.status();
    let code = if status == Status::Unhealthy {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let (openai, openai_detail) = found.provider("openai");
    let (anthropic, anthropic_detail) = found.provider("anthropic");
    let body = HealthReply {
        status,
        timestamp: trace::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        version: VERSION,
        queue_size: found.queue.unwrap_or_default(),
        queue_capacity: app.backend.dispatch.capacity(),
        services: ServicesReply {
            qdrant: found.vectors,
            redis: found.cache != CacheState::Away,
            anthropic,
            openai,
        },
        details: DetailsReply {
            qdrant: detail(found.vectors, app.backend.vectors.provider()),
            redis: found.cache_detail(),
            anthropic: anthropic_detail,
            openai: openai_detail,
            held_back: found.held_back.clone(),
            database: detail(found.records, app.backend.documents.provider()),
        },
    };
    (code, Json(body))
}

/// `GET /metrics`, for a collector that sends the internal secret.
pub(crate) async fn metrics(State(app): State<Arc<App>>, _: Operator) -> Result<Response, ApiError> {
    let found = app.health.found(&app.backend).await;
    let providers = found.models.iter().copied();
    let standing = Standing {
        up: [
            ("records", found.records),
            ("vectors", found.vectors),
            ("cache", found.cache != CacheState::Away),
            ("queue", found.queue.is_some()),
        ]
        .into_iter()
        .chain(providers)
        .collect(),
        models_held_back: found.held_back.len(),
        queue_size: found.queue.unwrap_or_default(),
        queue_capacity: app.backend.dispatch.capacity(),
    };
    match app.backend.metrics.text(&standing) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()),
        Err(_) => Err(ApiError::new(
            ErrorCode::ProcessingError,
            "something went wrong on our side",
        )),
    }
}

impl HealthCheck {
    async fn found(&self, backend: &Backend) -> Found {
        let mut last = self.0.lock().await;
        match &*last {
            Some((at, found)) if at.elapsed() < FRESH => found.clone(),
            Some(_) | None => {
                let found = Found::ask(backend).await;
                *last = Some((Instant::now(), found.clone()));
                found
            }
        }
    }
}

impl Found {
    async fn ask(backend: &Backend) -> Self {
        let models = backend
            .models
            .iter()
            .map(async |model| (model.provider(), answers(model.ping()).await));
        let (records, vectors, cache, queue, models) = tokio::join!(
            answers(backend.documents.ping()),
            answers(backend.vectors.ping()),
            tokio::time::timeout(PING_LIMIT, backend.cache.state()),
            tokio::time::timeout(PING_LIMIT, backend.dispatch.waiting()),
            join_all(models),
        );
        let held_back = backend.models.iter().flat_map(|model| model.held_back());
        Self {
            held_back: held_back.map(|model| model.to_string()).collect(),
            records,
            vectors,
            cache: cache.unwrap_or(CacheState::Away),
            queue: queue.ok().and_then(Result::ok),
            models,
        }
    }

    /// Without records there is no tenant to serve; without the rest, answers are worse or fewer.
    fn status(&self) -> Status {
        let all_models = self.models.iter().all(|(_, answers)| *answers);
        let all_models = all_models && self.held_back.is_empty();
        let all_stores = self.vectors && self.cache != CacheState::Away && self.queue.is_some();
        match (self.records, all_stores && all_models) {
            (false, _) => Status::Unhealthy,
            (true, false) => Status::Degraded,
            (true, true) => Status::Healthy,
        }
    }

    fn cache_detail(&self) -> &'static str {
        match self.cache {
            CacheState::Embedded => "embedded",
            CacheState::Answering => "answering",
            CacheState::Away => "not answering: each process counts and caches by itself",
        }
    }

    /// Whether a provider answers. Where it is not configured an embedded model stands in for it, and is named.
    fn provider(&self, name: &str) -> (bool, &'static str) {
        let own = self.models.iter().find(|(provider, _)| *provider == name);
        let embedded = self
            .models
            .iter()
            .find(|(provider, _)| matches!(*provider, "extractive" | "scripted"));
        match (own, embedded) {
            (Some((_, true)), _) => (true, "answering"),
            (Some((_, false)), _) => (false, "not answering"),
            (None, Some((provider, answers))) => (*answers, provider),
            (None, None) => (false, "not configured"),
        }
    }
}

/// An embedded store is named as such.
fn detail(answers: bool, provider: &'static str) -> &'static str {
    match (answers, provider) {
        (true, "embedded") => "embedded",
        (true, _) => "answering",
        (false, _) => "not answering",
    }
}

async fn answers(ping: impl Future<Output = Result<(), ServiceError>>) -> bool {
    match tokio::time::timeout(PING_LIMIT, ping).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a service does not answer");
            false
        }
        Err(_) => {
            tracing::warn!(limit = ?PING_LIMIT, "a service does not answer within its limit");
            false
        }
    }
}
