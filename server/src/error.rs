//! What goes wrong, as the caller sees it: the codes of the contract, and the only place that chooses HTTP statuses.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use stepgraph::{CheckpointError, RunError, RunId, scrubbed};
use stepgraph_nodes::service::ServiceError;

use crate::serving::fault::general;

/// The codes that callers know. They decide by the code, not by the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// Nobody we know, or not from where they may ask.
    InvalidApiKey,
    /// More chat messages than the tenant's tier allows in an hour.
    RateLimited,
    /// More documents than the tenant's tier allows.
    QuotaExceeded,
    /// The request itself is wrong; the same again fails again.
    InvalidRequest,
    /// Something of ours failed.
    ProcessingError,
    /// The chat model failed.
    LlmError,
    /// The search for sources failed.
    VectorSearchError,
    /// The answer took longer than its budget.
    Timeout,
    /// A service is down or full; later may work.
    ServiceUnavailable,
}

impl ErrorCode {
    /// Every code, in the order of the contract's table.
    pub const ALL: [Self; 9] = [
        Self::InvalidApiKey,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::InvalidRequest,
        Self::ProcessingError,
        Self::LlmError,
        Self::VectorSearchError,
        Self::Timeout,
        Self::ServiceUnavailable,
    ];

    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "INVALID_API_KEY",
            Self::RateLimited => "RATE_LIMITED",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::ProcessingError => "PROCESSING_ERROR",
            Self::LlmError => "LLM_ERROR",
            Self::VectorSearchError => "VECTOR_SEARCH_ERROR",
            Self::Timeout => "TIMEOUT",
            Self::ServiceUnavailable => "SERVICE_UNAVAILABLE",
        }
    }

    /// The code of this wire name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// Whether the caller is expected to send the same request again.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.status().is_server_error()
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::QuotaExceeded => StatusCode::PAYMENT_REQUIRED,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::ProcessingError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::LlmError | Self::VectorSearchError => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// How long a caller should stay away where nothing better is known.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(2);

/// What a caller is told, without what looks like a secret.
fn told(message: String) -> String {
    match scrubbed(&message) {
        Cow::Borrowed(_) => message,
        Cow::Owned(clean) => clean,
    }
}

/// An error on its way out. The message is for the caller; what only the log may know is logged where it happens.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: ErrorCode,
    status: StatusCode,
    message: String,
    details: Map<String, Value>,
    headers: HeaderMap,
    run: Option<RunId>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let error = Self(Box::new(Parts {
            code,
            status: code.status(),
            message: told(message.into()),
            details: Map::new(),
            headers: HeaderMap::new(),
            run: None,
        }));
        match code {
            ErrorCode::ServiceUnavailable => error.retry_after(RETRY_AFTER_DEFAULT),
            _ => error,
        }
    }

    /// The request is wrong; `reason` is stable, for programs.
    pub(crate) fn invalid(reason: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message).detail("reason", reason)
    }

    /// There is no such thing here.
    pub(crate) fn not_found(reason: &str, message: impl Into<String>) -> Self {
        Self::invalid(reason, message).status(StatusCode::NOT_FOUND)
    }

    /// The request is well formed, but asks for what cannot be.
    pub(crate) fn unfit(reason: &str, message: impl Into<String>) -> Self {
        Self::invalid(reason, message).status(StatusCode::UNPROCESSABLE_ENTITY)
    }

    /// The request does not fit how things stand; it may later.
    pub(crate) fn conflict(reason: &str, message: impl Into<String>) -> Self {
        Self::invalid(reason, message).status(StatusCode::CONFLICT)
    }

    /// The body is larger than the route takes.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::invalid("body_too_large", message).status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// How a run is refused before it begins. `None` for an error of the run itself, which is part of its result.
    pub(crate) fn refused_run(error: &RunError) -> Option<Self> {
        let (code, message) = (error.code(), error.to_string());
        Some(match error {
            RunError::Busy { .. }
            | RunError::Pending { .. }
            | RunError::UnknownThread { .. }
            | RunError::Incompatible { .. }
            | RunError::OtherVersion { .. }
            | RunError::Checkpoint(CheckpointError::Conflict { .. } | CheckpointError::Fenced { .. }) => {
                Self::conflict(code, message)
            }
            RunError::UnknownQuestion { .. }
            | RunError::AmbiguousAnswer { .. }
            | RunError::AmbiguousUpdate { .. }
            | RunError::UnknownNode { .. } => Self::unfit(code, message),
            RunError::NoCheckpoint { .. } => Self::not_found(code, message),
            RunError::Checkpoint(error) if error.is_retryable() => {
                tracing::error!(%error, "the checkpoint store does not answer");
                unavailable()
            }
            RunError::Missing { .. }
            | RunError::NoCheckpointer { .. }
            | RunError::State(_)
            | RunError::Checkpoint(_) => {
                tracing::error!(%error, "a graph cannot be run as it is served");
                Self::new(ErrorCode::ProcessingError, "something went wrong on our side").detail("reason", code)
            }
            _ => return None,
        })
    }

    /// What reading or editing a thread failed with.
    pub(crate) fn of_thread(error: &RunError) -> Self {
        Self::refused_run(error).unwrap_or_else(|| {
            tracing::warn!(code = error.code(), %error, "a thread could not be read or edited");
            Self::unfit(error.code(), general(error))
        })
    }

    /// The route exists, but not for this method.
    pub(crate) fn method_not_allowed() -> Self {
        let message = "this address does not answer to this method";
        Self::invalid("method_not_allowed", message).status(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// The caller is known, but may not do this.
    pub(crate) fn forbidden(reason: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidApiKey, message)
            .detail("reason", reason)
            .status(StatusCode::FORBIDDEN)
    }

    /// A service under a request failed. The caller learns which kind of failure it was; the log learns all.
    pub(crate) fn service(error: &ServiceError) -> Self {
        tracing::error!(code = error.code(), %error, "a service failed");
        match error {
            ServiceError::Unavailable { .. } => unavailable(),
            ServiceError::RateLimited { retry_after, .. } => match retry_after {
                Some(wait) => unavailable().retry_after(*wait),
                None => unavailable(),
            },
            ServiceError::Timeout { .. } => {
                Self::new(ErrorCode::Timeout, "the service took too long, please try again")
            }
            _ => Self::new(ErrorCode::ProcessingError, "something went wrong on our side"),
        }
    }

    pub(crate) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.details.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The run that failed, where it is not the one this request began.
    pub(crate) fn of_run(mut self, run: RunId) -> Self {
        self.0.run = Some(run);
        self
    }

    /// Whether this is the stable reason of the error.
    pub(crate) fn is_for(&self, reason: &str) -> bool {
        self.0.details.get("reason").is_some_and(|known| known == reason)
    }

    fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// The answer as the graph interface writes it: what is wrong, and a stable code.
    pub(crate) fn render_detail(&self) -> Response {
        let Parts {
            code,
            status,
            message,
            details,
            headers,
            ..
        } = &*self.0;
        let code = details.get("reason").cloned().unwrap_or_else(|| json!(code));
        let mut response = (*status, axum::Json(json!({"detail": message, "code": code}))).into_response();
        response.headers_mut().extend(headers.clone());
        response
    }

    /// The answer in the envelope of the contract, once the trace is known.
    pub(crate) fn render(&self, trace: RunId) -> Response {
        let Parts {
            code,
            status,
            message,
            details,
            headers,
            run,
        } = &*self.0;
        let mut error = Map::from_iter([("code".to_owned(), json!(code)), ("message".to_owned(), json!(message))]);
        if !details.is_empty() {
            error.insert("details".to_owned(), Value::Object(details.clone()));
        }
        let envelope = json!({"error": error, "traceId": run.unwrap_or(trace)});
        let mut response = (*status, axum::Json(envelope)).into_response();
        response.headers_mut().extend(headers.clone());
        response
    }
}

fn unavailable() -> ApiError {
    ApiError::new(
        ErrorCode::ServiceUnavailable,
        "the service is not available at the moment, please try again shortly",
    )
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        Self::service(&error)
    }
}

/// Carries the error to the outermost layer, which knows the trace and renders it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_of_the_contract_and_a_name_that_parses_back() {
        let statuses = [401, 429, 402, 400, 500, 502, 502, 504, 503];
        for (code, status) in ErrorCode::ALL.into_iter().zip(statuses) {
            assert_eq!(code.status().as_u16(), status, "{code:?}");
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn only_server_errors_are_worth_sending_again() {
        let retried: Vec<_> = ErrorCode::ALL
            .into_iter()
            .filter(|code| code.is_retryable())
            .map(ErrorCode::as_str)
            .collect();

        assert_eq!(
            retried,
            [
                "PROCESSING_ERROR",
                "LLM_ERROR",
                "VECTOR_SEARCH_ERROR",
                "TIMEOUT",
                "SERVICE_UNAVAILABLE"
            ]
        );
    }

    #[test]
    fn the_drivers_words_stay_out_of_the_answer() {
        let error = ServiceError::Corrupt {
            service: "records",
            message: "row 7 of secret_table".to_owned(),
        };

        let shown = ApiError::service(&error);

        assert_eq!(shown.0.code, ErrorCode::ProcessingError);
        assert!(!shown.0.message.contains("secret_table"));
    }

    #[test]
    fn a_wait_of_under_a_second_is_sent_as_one_second() {
        let error = unavailable().retry_after(Duration::from_millis(10));

        assert_eq!(error.0.headers.get(header::RETRY_AFTER).unwrap(), "1");
    }
}
