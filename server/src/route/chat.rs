//! Chat messages: answered whole, or streamed.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use stepgraph::RunId;
use stepgraph_nodes::{
    service::{Client, NamedState},
    trace::TraceParent,
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{Json, Params};
use crate::{
    auth::Caller,
    backend::{Answer, ChatCommand, ChatFailure},
    error::{ApiError, ErrorCode},
    runs::{Audience, Entered, Reader, RequestKey, RunKey, Said, Seat},
    sse::{self, Dialect},
    state::App,
    trace::{self, Trace},
    wire::{ChatBody, ChatReply, UsageReply},
};

mod named;
mod sending;

use sending::Sending;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Longest `Idempotency-Key`.
const NAME_BYTES_MAX: usize = 255;

/// `POST /chat`: the whole answer.
pub(crate) async fn answer(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<Trace>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<ChatBody>,
) -> Result<Response, ApiError> {
    let request = ChatRequest::read(&app, caller, &headers, body, trace).await?;
    let mut reader = request.open(&app).await?;
    let outcome = reader.outcome().await;
    let quota = reader.quota();
    let mut response = match outcome {
        Ok(answer) => whole(reader, &request.body.session_id, &answer),
        Err(failure) => failed(&failure).of_run(reader.run()).into_response(),
    };
    if let Some(quota) = quota {
        quota.write(response.headers_mut());
    }
    Ok(response)
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamQuery {
    #[serde(default)]
    dialect: Option<String>,
}

/// `POST /chat/stream`: the answer as it is made.
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<Trace>,
    caller: Caller,
    Params(query): Params<StreamQuery>,
    headers: HeaderMap,
    Json(body): Json<ChatBody>,
) -> Result<Response, ApiError> {
    let dialect = dialect(&headers, query.dialect.as_deref())?;
    let request = ChatRequest::read(&app, caller, &headers, body, trace).await?;
    let (reader, returning) = match headers.get(LAST_EVENT_ID).filter(|_| dialect == Dialect::Json) {
        Some(last) => (request.resume(&app, last)?, true),
        None => (request.open(&app).await?, false),
    };
    let quota = reader.quota();
    let mut response = match timeout(App::START_AFTER, reader.peek()).await {
        Ok(Some(Said::Failed(failure))) if !returning => failed(&failure).of_run(reader.run()).into_response(),
        Ok(_) | Err(_) => streamed(Sending::new(reader, dialect, &request.body.session_id, returning)),
    };
    if let Some(quota) = quota {
        quota.write(response.headers_mut());
    }
    Ok(response)
}

/// A chat request that may be answered: the caller is known, the body is right.
struct ChatRequest {
    client: Client,
    audience: Audience,
    body: ChatBody,
    key: RunKey,
    trace: RunId,
    parent: Option<TraceParent>,
}

impl ChatRequest {
    async fn read(
        app: &App,
        caller: Caller,
        headers: &HeaderMap,
        body: ChatBody,
        Trace(trace): Trace,
    ) -> Result<Self, ApiError> {
        let audience = if caller.is_internal() {
            Audience::Internal
        } else {
            Audience::Direct
        };
        let page = body.page_url();
        let client = caller.client(app, body.client_id.as_deref(), page).await?;
        body.validate()?;
        let request = match headers.get(IDEMPOTENCY_KEY) {
            Some(name) => RequestKey::Named(named(name)?),
            None => RequestKey::Message(Sha256::digest(body.message.as_bytes()).into()),
        };
        let key = RunKey {
            tenant: client.tenant.clone(),
            session: body.session_id.clone(),
            request,
        };
        Ok(Self {
            client,
            audience,
            body,
            key,
            trace,
            parent: trace::parent(headers),
        })
    }

    /// Joins the run this request repeats, or starts one. Only what starts a run counts against the limit.
    async fn open(&self, app: &Arc<App>) -> Result<Reader, ApiError> {
        if let Some(request) = self.name() {
            return self.open_named(app, &request).await;
        }
        match app
            .runs
            .enter(self.key.clone(), self.audience, self.trace, Instant::now())
        {
            Entered::Joined(reader) => Ok(reader),
            Entered::Repeat(seat) => Ok(self.start(app, seat, Again::Yes).await?),
            Entered::First(seat) => Ok(self.start(app, seat, Again::No).await?),
        }
    }

    async fn start(&self, app: &Arc<App>, seat: Seat, again: Again) -> Result<Reader, ApiError> {
        let now = trace::now();
        let quota = match again {
            Again::Yes => match seat.quota() {
                Some(quota) => Some(quota),
                None => app.limiter.standing(&self.client, now).await,
            },
            Again::No => match app.limiter.take(&self.client, now).await {
                Ok(quota) => {
                    if let Some(request) = self.name() {
                        let (tenant, run) = (&self.client.tenant, seat.run());
                        app.backend
                            .named
                            .note(tenant, &request, run, &NamedState::Begun)
                            .await?;
                    }
                    quota
                }
                Err(refused) => {
                    if let Some(request) = self.name() {
                        named::release(app, &self.client.tenant, &request, seat.run()).await;
                    }
                    seat.refuse(ChatFailure::new(
                        ErrorCode::RateLimited,
                        "too many messages for now, please try again later",
                    ));
                    return Err(refused);
                }
            },
        };
        let command = ChatCommand {
            trace: self.parent,
            run: seat.run(),
            repeat: matches!(again, Again::Yes),
            client: self.client.clone(),
            session: self.body.session_id.clone(),
            message: self.body.message.clone(),
            metadata: self.body.metadata.clone().unwrap_or_default(),
            asked_at: now,
            overage: quota.is_some_and(crate::limit::Quota::is_overage),
            budget: app.settings.answer_budget,
        };
        let reader = app.runs.start(seat, quota, command);
        self.note_the_end(app, &reader);
        Ok(reader)
    }

    /// The reader of a client that comes back after a broken stream.
    fn resume(&self, app: &App, last: &HeaderValue) -> Result<Reader, ApiError> {
        let gone = || {
            ApiError::not_found(
                "events_gone",
                "the events of this run are no longer kept: send the message anew",
            )
        };
        let (run, after) = last.to_str().ok().and_then(event_id).ok_or_else(gone)?;
        app.runs.resume(&self.key, run, after, Instant::now()).ok_or_else(gone)
    }
}

#[derive(Clone, Copy)]
enum Again {
    Yes,
    No,
}

fn whole(reader: Reader, session: &str, answer: &Answer) -> Response {
    let reply = ChatReply {
        response: &answer.text,
        session_id: session,
        sources: &answer.sources,
        usage: UsageReply::from(answer),
        trace_id: reader.run(),
    };
    let Ok(bytes) = serde_json::to_vec(&reply) else {
        return ApiError::new(ErrorCode::ProcessingError, "something went wrong on our side").into_response();
    };
    let length = HeaderValue::from(bytes.len());
    // The body is asked for once the connection takes it: only then an equal message is a new one.
    let body = stream::once(async move {
        reader.delivered();
        Ok::<_, Infallible>(Bytes::from(bytes))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_LENGTH, length),
    ];
    (headers, Body::from_stream(body)).into_response()
}

fn streamed(sending: Sending) -> Response {
    let frames = stream::unfold(sending, |mut sending| async {
        let frame = sending.next().await?;
        Some((frame, sending))
    });
    sse::response(frames)
}

fn failed(failure: &ChatFailure) -> ApiError {
    let error = ApiError::new(failure.code, failure.message.clone());
    match failure.retry_after {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

fn named(name: &HeaderValue) -> Result<String, ApiError> {
    match name.to_str() {
        Ok(name) if (1..=NAME_BYTES_MAX).contains(&name.len()) => Ok(name.to_owned()),
        Ok(_) | Err(_) => {
            let message = format!("`Idempotency-Key` must have 1 to {NAME_BYTES_MAX} visible ASCII characters");
            Err(ApiError::invalid("idempotency_key", message))
        }
    }
}

/// The dialect of the query, else of the parameter that stands beside the media type, whose case means nothing.
fn dialect(headers: &HeaderMap, query: Option<&str>) -> Result<Dialect, ApiError> {
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",")
        .to_ascii_lowercase();
    let parameter = accepted
        .split(',')
        .filter(|range| range.trim_start().starts_with("text/event-stream"))
        .flat_map(|range| range.split(';'))
        .find_map(|part| part.trim().strip_prefix("dialect="))
        .map(|value| value.trim_matches('"'));
    match query.map(str::to_ascii_lowercase).as_deref().or(parameter) {
        None | Some("text") => Ok(Dialect::Text),
        Some("json") => Ok(Dialect::Json),
        Some(_) => Err(ApiError::invalid("dialect", "`dialect` must be `text` or `json`")),
    }
}

/// `{run}-{events read}`, as the streams of the JSON dialect number their events.
fn event_id(id: &str) -> Option<(RunId, usize)> {
    let (run, read) = id.trim().rsplit_once('-')?;
    Some((RunId::from(Uuid::parse_str(run).ok()?), read.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_is_read_from_query_or_accept_header() {
        let accept = |value: &'static str| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);

        assert_eq!(dialect(&HeaderMap::new(), None).unwrap(), Dialect::Text);
        assert_eq!(dialect(&accept("text/event-stream"), None).unwrap(), Dialect::Text);
        assert_eq!(
            dialect(&accept("text/event-stream; dialect=json"), None).unwrap(),
            Dialect::Json
        );
        assert_eq!(
            dialect(&accept("*/*, text/event-stream;dialect=json;q=1"), None).unwrap(),
            Dialect::Json
        );
        assert_eq!(
            dialect(&accept("Text/Event-Stream; Dialect=\"JSON\""), None).unwrap(),
            Dialect::Json
        );
        assert_eq!(
            dialect(&accept("text/event-stream"), Some("json")).unwrap(),
            Dialect::Json
        );
        assert!(dialect(&HeaderMap::new(), Some("xml")).is_err());
    }

    #[test]
    fn event_ids_name_the_run_and_what_was_read_of_it() {
        let run = RunId::random();

        assert_eq!(event_id(&format!("{run}-12")), Some((run, 12)));
        assert_eq!(event_id("12"), None);
        assert_eq!(event_id(&run.to_string()), None);
    }
}
