//! What all providers of models over HTTP have in common: how they are reached, and what their answers mean.

mod echo;
mod http;
mod problem;

use std::time::Duration;

use reqwest::Url;

pub(super) use self::{http::Http, problem::Problem};
use super::{Secret, ServiceError};

/// Longest wait for a sign of life.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// No answer is longer: a provider that does not keep to its limit of tokens is stopped.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Where JSON is not as it should be, without the values that stand there: they are what a model or a visitor has said.
pub(super) fn place_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io => "cannot be read",
        serde_json::error::Category::Syntax => "is no JSON",
        serde_json::error::Category::Data => "is JSON of another shape",
        serde_json::error::Category::Eof => "ends too early",
    };
    format!("it {what} at line {} column {}", error.line(), error.column())
}

/// How a provider is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProviderOptions {
    /// Where its protocol begins, for instance `https://api.openai.com/v1`.
    pub base_url: String,
    /// Its key; servers on the own machine often want none.
    pub key: Option<Secret>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
}

impl ProviderOptions {
    /// The provider at `base_url`.
    pub fn new(base_url: impl Into<String>, key: Option<Secret>) -> Self {
        Self {
            base_url: base_url.into(),
            key,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Where a provider is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// Without a slash at its end.
    pub(super) base_url: String,
    /// With its port, where the URL names one.
    pub(super) host: String,
}

impl Address {
    pub(super) fn parse(service: &'static str, base_url: &str, example: &str) -> Result<Self, ServiceError> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        let fits = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        let url = Url::parse(&base_url).ok().filter(fits);
        let host = url.as_ref().and_then(Url::host_str).ok_or_else(|| {
            let message =
                format!("the base URL is not one of http or https without password and query: set it like {example}");
            refused(service, message)
        })?;
        let port = url.as_ref().and_then(Url::port).map(|port| format!(":{port}"));
        Ok(Self {
            host: format!("{host}{}", port.unwrap_or_default()),
            base_url,
        })
    }
}

pub(super) const fn refused(service: &'static str, message: String) -> ServiceError {
    ServiceError::Refused { service, message }
}

pub(super) const fn corrupt(service: &'static str, message: String) -> ServiceError {
    ServiceError::Corrupt { service, message }
}

/// Adds a piece to an answer that is kept to count its tokens.
pub(super) fn grow(service: &'static str, answer: &mut String, piece: &str) -> Result<(), ServiceError> {
    answer.push_str(piece);
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(corrupt(
            service,
            format!("the answer is longer than {ANSWER_BYTES_MAX} bytes: the model ignores its limit of tokens"),
        ));
    }
    Ok(())
}
