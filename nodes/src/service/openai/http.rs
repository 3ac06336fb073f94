//! The transport beneath the protocol: key, retries, and what an HTTP answer means.

use std::{
    collections::hash_map::RandomState,
    fmt,
    future::Future,
    hash::BuildHasher,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use chrono::DateTime;
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};
use tower::Service;

use super::{OpenAiOptions, SERVICE, refused};
use crate::service::{Secret, ServiceError, tls};

/// Wait before the first retry when the provider names none; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(250);

/// Most bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// Most characters of the provider's words that go into a message.
const WORDS_MAX: usize = 300;

/// Sends requests with the key and tries again what may pass.
#[derive(Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    authorization: Option<HeaderValue>,
    key: Option<Secret>,
    host: String,
    connect_timeout: Duration,
    retries_max: u32,
    retry_wait_max: Duration,
}

/// A failed attempt, and how long the provider asks to wait.
struct Failed {
    error: ServiceError,
    retry_after: Option<Duration>,
}

impl Http {
    pub(super) fn new(host: &str, options: &OpenAiOptions) -> Result<Self, ServiceError> {
        tls::install();
        let client = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            // A redirected POST loses its body, and its key would go to another place.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| unavailable("no HTTP client can be made on this machine".to_owned(), error))?;
        let authorization = options.key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| {
                refused(format!(
                    "the key for {host} holds characters that no key has: copy it again"
                ))
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self {
            client,
            authorization: authorization.transpose()?,
            key: options.key.clone(),
            host: host.to_owned(),
            connect_timeout: options.connect_timeout,
            retries_max: options.retries_max,
            retry_wait_max: options.retry_wait_max,
        })
    }

    pub(super) const fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// GET without a retry, for health.
    pub(super) async fn get_once(&self, url: String) -> Result<(), ServiceError> {
        let client = self.client.clone();
        let factory = HttpRequestFactory::new(move || {
            let request = client.get(&url).build();
            async move { Ok(request?) }
        });
        self.attempt(&factory).await.map(drop).map_err(|failed| failed.error)
    }

    async fn send(&self, factory: HttpRequestFactory) -> Result<Response, ServiceError> {
        let mut retries = 0;
        loop {
            let failed = match self.attempt(&factory).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let wait = failed.retry_after.unwrap_or_else(|| backoff(retries));
            if retries >= self.retries_max || wait > self.retry_wait_max || !passes(&failed.error) {
                return Err(failed.error);
            }
            tracing::debug!(host = self.host, retries, ?wait, error = %failed.error, "the call is tried again");
            tokio::time::sleep(wait).await;
            retries += 1;
        }
    }

    async fn attempt(&self, factory: &HttpRequestFactory) -> Result<Response, Failed> {
        let mut request = factory.build().await.map_err(|error| Failed {
            error: self.explain(error),
            retry_after: None,
        })?;
        request.headers_mut().remove(AUTHORIZATION);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                return Err(Failed {
                    error: self.unsent(error),
                    retry_after: None,
                });
            }
        };
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.rejected(response).await)
        }
    }

    /// A request that no answer came to.
    fn unsent(&self, error: reqwest::Error) -> ServiceError {
        // Its URL says no more than the host and may hold what is private.
        let error = error.without_url();
        if error.is_timeout() {
            return ServiceError::Timeout {
                service: SERVICE,
                limit: self.connect_timeout,
            };
        }
        let host = &self.host;
        unavailable(
            format!("{host} cannot be reached: check that it runs and that the base URL names it"),
            error,
        )
    }

    /// An answer that is a refusal.
    async fn rejected(&self, mut response: Response) -> Failed {
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = response.chunk().await {
            body.extend_from_slice(&bytes);
            if body.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        let problem = Problem::read(&body);
        Failed {
            error: self.meaning(status, &problem, retry_after),
            retry_after,
        }
    }

    fn meaning(&self, status: StatusCode, problem: &Problem, retry_after: Option<Duration>) -> ServiceError {
        let host = &self.host;
        let words = self.quote(&problem.message);
        match status.as_u16() {
            401 | 403 => refused(format!(
                "{host} does not accept the key: check it and what it is allowed to do"
            )),
            404 => refused(format!(
                "{host} does not know this model or address: check the model's name and the base URL{words}"
            )),
            429 if problem.is_quota => refused(format!(
                "the account at {host} has no quota left: add credit or raise its limit"
            )),
            429 => ServiceError::RateLimited {
                service: SERVICE,
                message: format!("{host} is called too often: slow down or raise the account's limit{words}"),
                retry_after,
            },
            300..=399 => refused(format!(
                "{host} sends the call elsewhere: set the base URL to where it really is"
            )),
            408 | 425 | 500.. => ServiceError::Unavailable {
                service: SERVICE,
                message: format!("{host} answers {}: try again later{words}", status.as_u16()),
                source: None,
            },
            other => refused(format!(
                "{host} answers {other}: check the request's model and limits{words}"
            )),
        }
    }

    /// What an error of the protocol's crate means. Ours come back out of it as they went in.
    pub(super) fn explain(&self, error: OpenAIError) -> ServiceError {
        let host = &self.host;
        match error {
            OpenAIError::Boxed(boxed) => match boxed.downcast::<ServiceError>() {
                Ok(ours) => *ours,
                Err(other) => ServiceError::Unavailable {
                    service: SERVICE,
                    message: format!("the call to {host} failed"),
                    source: Some(other),
                },
            },
            OpenAIError::Reqwest(error) => self.unsent(error),
            OpenAIError::JSONDeserialize(error, _) => {
                corrupt(format!("{host} sent what is not of its protocol: {error}"))
            }
            OpenAIError::StreamError(error) => ServiceError::Unavailable {
                service: SERVICE,
                message: format!("{host} broke off its answer: try again"),
                source: Some(error.to_string().into()),
            },
            other => refused(format!(
                "the request to {host} could not be made{}",
                self.quote(&other.to_string())
            )),
        }
    }

    /// An error that stands in the place of a chunk.
    pub(super) fn midway(&self, message: &str) -> ServiceError {
        ServiceError::Unavailable {
            service: SERVICE,
            message: format!(
                "{} gave up in the middle of its answer: try again{}",
                self.host,
                self.quote(message)
            ),
            source: None,
        }
    }

    /// The provider's words in a form fit for a message: short, on one line, without the key.
    fn quote(&self, words: &str) -> String {
        let words = self
            .key
            .as_ref()
            .map_or_else(|| words.to_owned(), |key| key.scrub(words));
        let words: String = words
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(WORDS_MAX)
            .collect();
        if words.is_empty() {
            words
        } else {
            format!(" (it says: {words})")
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("host", &self.host)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Service<HttpRequestFactory> for Http {
    type Response = Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let http = self.clone();
        Box::pin(async move { http.send(factory).await.map_err(Failure) })
    }
}

/// Our error on its way through the protocol's crate.
#[derive(Debug)]
pub(super) struct Failure(ServiceError);

impl From<Failure> for OpenAIError {
    fn from(Failure(error): Failure) -> Self {
        Self::Boxed(Box::new(error))
    }
}

/// What a provider says about a refusal.
struct Problem {
    message: String,
    is_quota: bool,
}

impl Problem {
    fn read(body: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointer| json.pointer(pointer).and_then(serde_json::Value::as_str);
        let is_quota = [text("/error/type"), text("/error/code")].contains(&Some("insufficient_quota"));
        let message = text("/error/message")
            .or_else(|| text("/error"))
            .or_else(|| text("/message"))
            .or_else(|| text("/detail"));
        Self {
            message: message.unwrap_or_default().to_owned(),
            is_quota,
        }
    }
}

pub(super) fn corrupt(message: String) -> ServiceError {
    ServiceError::Corrupt {
        service: SERVICE,
        message,
    }
}

fn unavailable(message: String, error: reqwest::Error) -> ServiceError {
    ServiceError::Unavailable {
        service: SERVICE,
        message,
        source: Some(Box::new(error)),
    }
}

/// Whether the same call may pass a moment later. A time-out may, but has used up the patience there was.
const fn passes(error: &ServiceError) -> bool {
    matches!(
        error,
        ServiceError::RateLimited { .. } | ServiceError::Unavailable { .. }
    )
}

/// Twice as long each time, less a random part, so that many callers do not come back at once.
fn backoff(retries: u32) -> Duration {
    let whole = BACKOFF.saturating_mul(2_u32.saturating_pow(retries));
    let share = u32::try_from(RandomState::new().hash_one(retries) % 50).unwrap_or_default();
    whole.saturating_mul(100 - share) / 100
}

/// How long the provider asks to wait: in seconds, or until a time that is told against the clock of the same answer.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (until, now) = (
        DateTime::parse_from_rfc2822(asked).ok()?,
        DateTime::parse_from_rfc2822(text(DATE)?).ok()?,
    );
    Some((until - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_wait_asked_for_is_read_in_both_of_its_forms() {
        assert_eq!(
            retry_after(&headers(&[(RETRY_AFTER, "7")])),
            Some(Duration::from_secs(7))
        );
        let until = headers(&[
            (RETRY_AFTER, "Sun, 22 Nov 2026 10:00:30 GMT"),
            (DATE, "Sun, 22 Nov 2026 10:00:00 GMT"),
        ]);
        assert_eq!(retry_after(&until), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "soon")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }

    #[test]
    fn the_back_off_grows_and_never_exceeds_its_step() {
        for retries in 0..5 {
            let step = BACKOFF * 2_u32.pow(retries);
            assert!((step / 2..=step).contains(&backoff(retries)));
        }
    }
}
