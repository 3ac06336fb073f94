//! One attempt at a call: key, trace, and what comes back.

use std::{fmt, time::Duration};

use chrono::DateTime;
use reqwest::{
    Request, Response,
    header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};

use super::{Problem, ProviderOptions, echo::Sent, refused};
use crate::{
    service::{AskedToWait, Message, Secret, ServiceError, tls},
    trace::{self, TRACEPARENT},
};

/// Most bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// Longest wait for the body of an error: its status alone says enough.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// Most characters of the provider's words that go into a message.
const WORDS_MAX: usize = 300;

/// Sends requests with the key, and puts in words why there is no answer.
#[derive(Clone)]
pub(in crate::service) struct Http {
    service: &'static str,
    client: reqwest::Client,
    headers: HeaderMap,
    key: Option<Secret>,
    host: String,
    connect_timeout: Duration,
    /// What was sent, where an error is about to quote who received it.
    sent: Sent,
}

impl Http {
    /// Sends `headers` with each request; those that hold the key are never printed.
    pub(in crate::service) fn new(
        service: &'static str,
        host: &str,
        headers: Vec<(HeaderName, Secret)>,
        options: &ProviderOptions,
    ) -> Result<Self, ServiceError> {
        tls::install();
        let client = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            // A redirected POST loses its body, and its key would go to another place.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| ServiceError::Unavailable {
                service,
                message: "no HTTP client can be made on this machine".to_owned(),
                source: Some(Box::new(error)),
            })?;
        let mut sent = HeaderMap::new();
        for (name, text) in headers {
            let mut value = HeaderValue::from_str(text.expose()).map_err(|_| {
                let message = format!("the key for {host} holds characters that no key has: copy it again");
                refused(service, message)
            })?;
            value.set_sensitive(true);
            sent.insert(name, value);
        }
        Ok(Self {
            service,
            client,
            headers: sent,
            key: options.key.clone(),
            host: host.to_owned(),
            connect_timeout: options.connect_timeout,
            sent: Sent::default(),
        })
    }

    pub(in crate::service) const fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(in crate::service) fn host(&self) -> &str {
        &self.host
    }

    /// GET of nothing but a sign of life.
    pub(in crate::service) async fn get(&self, url: &str) -> Result<(), ServiceError> {
        let request = self.client.get(url).build().map_err(|error| self.unsent(error))?;
        self.send(request).await.map(drop)
    }

    /// One attempt; an answer that is no success is an error.
    pub(in crate::service) async fn send(&self, mut request: Request) -> Result<Response, ServiceError> {
        let headers = request.headers_mut();
        headers.remove(AUTHORIZATION);
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(trace) = trace::current().and_then(|trace| HeaderValue::try_from(trace.to_string()).ok()) {
            headers.insert(TRACEPARENT, trace);
        }
        let sent = request.try_clone();
        let response = self.client.execute(request).await.map_err(|error| self.unsent(error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            // Read only now: of a request that went well nothing is quoted.
            let body = sent.as_ref().and_then(|request| request.body()?.as_bytes());
            let http = Self {
                sent: Sent::of_body(body.unwrap_or_default()),
                ..self.clone()
            };
            Err(http.rejected(response).await)
        }
    }

    /// The same about these messages and what has come of the answer to them: their texts are not quoted in errors.
    pub(in crate::service) fn about(&self, messages: &[Message], answer: &str) -> Self {
        let texts = messages.iter().map(|message| message.content.as_str());
        Self {
            sent: Sent::of_texts(texts.chain([answer])),
            ..self.clone()
        }
    }

    /// A request that no answer came to.
    pub(in crate::service) fn unsent(&self, error: reqwest::Error) -> ServiceError {
        // Its URL says no more than the host and may hold what is private.
        let error = error.without_url();
        if error.is_timeout() {
            return ServiceError::Timeout {
                service: self.service,
                limit: self.connect_timeout,
            };
        }
        let host = &self.host;
        ServiceError::Unavailable {
            service: self.service,
            message: format!("{host} cannot be reached: check that it runs and that the base URL names it"),
            source: Some(Box::new(error)),
        }
    }

    /// An answer that is a refusal.
    async fn rejected(&self, mut response: Response) -> ServiceError {
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(bytes)) = response.chunk().await {
                body.extend_from_slice(&bytes);
                if body.len() > ERROR_BYTES_MAX {
                    break;
                }
            }
        };
        // What has come until then is read all the same.
        let _ = tokio::time::timeout(ERROR_BODY_TIMEOUT, read).await;
        self.meaning(status, &Problem::read(&body), retry_after)
    }

    fn meaning(&self, status: u16, problem: &Problem, retry_after: Option<Duration>) -> ServiceError {
        let (service, host) = (self.service, &self.host);
        let words = self.quote(&problem.message);
        match status {
            _ if problem.is_quota() => refused(
                service,
                format!("the account at {host} has no quota left: add credit or raise its limit"),
            ),
            401 | 403 => refused(
                service,
                format!("{host} does not accept the key: check it and what it is allowed to do"),
            ),
            404 => refused(
                service,
                format!("{host} does not know this model or address: check the model's name and the base URL{words}"),
            ),
            429 => ServiceError::RateLimited {
                service,
                message: format!("{host} is called too often: slow down or raise the account's limit{words}"),
                retry_after,
            },
            300..=399 => refused(
                service,
                format!("{host} sends the call elsewhere: set the base URL to where it really is"),
            ),
            408 | 409 | 425 | 500.. => ServiceError::Unavailable {
                service,
                message: format!("{host} answers {status}: try again later{words}"),
                source: retry_after.map(|wait| Box::new(AskedToWait(wait)) as _),
            },
            other => refused(
                service,
                format!("{host} answers {other}: check the request's model and limits{words}"),
            ),
        }
    }

    /// An error that stands in the place of a piece of the answer.
    pub(in crate::service) fn midway(&self, problem: &Problem) -> ServiceError {
        let (service, host) = (self.service, &self.host);
        let words = self.quote(&problem.message);
        match problem.kind() {
            // What the request itself is to blame for, or the account.
            "authentication_error" | "permission_error" => self.meaning(401, problem, None),
            "not_found_error" => self.meaning(404, problem, None),
            "rate_limit_error" | "rate_limit_exceeded" => self.meaning(429, problem, None),
            "invalid_request_error" | "request_too_large" | "context_length_exceeded" => {
                self.meaning(400, problem, None)
            }
            _ if problem.is_quota() => self.meaning(429, problem, None),
            _ => ServiceError::Unavailable {
                service,
                message: format!("{host} gave up in the middle of its answer: try again{words}"),
                source: None,
            },
        }
    }

    /// An answer that ends before its end.
    pub(in crate::service) fn cut_off(&self, how: &str) -> ServiceError {
        ServiceError::Unavailable {
            service: self.service,
            message: format!("{} broke off its answer: try again{}", self.host, self.quote(how)),
            source: None,
        }
    }

    /// An answer in words that are not of the protocol.
    pub(in crate::service) fn unreadable(&self, error: &dyn fmt::Display) -> ServiceError {
        let message = format!(
            "{} sent what is not of its protocol{}",
            self.host,
            self.quote(&error.to_string())
        );
        super::corrupt(self.service, message)
    }

    /// The provider's words in a form fit for a message: short, on one line, without the key, and left out where they repeat
    /// what was sent.
    pub(in crate::service) fn quote(&self, words: &str) -> String {
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
        if words.is_empty() || self.sent.is_quoted_in(&words) {
            String::new()
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
}
