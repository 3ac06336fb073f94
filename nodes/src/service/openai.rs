//! Chat and embeddings from any provider that speaks the protocol of `OpenAI`.
//!
//! The protocol is async-openai's; the transport beneath it is ours, so that a call is tried again within
//! bounds, waits as long as the provider asks, and never shows its key.

mod chat;
mod embedder;
mod http;
mod wire;

use std::time::Duration;

use async_openai::{Client, config::OpenAIConfig};
use reqwest::Url;

use self::http::Http;
pub use self::{chat::OpenAi, embedder::OpenAiEmbedder};
use super::{Secret, ServiceError};

/// What stands in logs, usage and health for this provider.
const SERVICE: &str = "openai";

/// How a provider is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenAiOptions {
    /// Where its protocol begins, for instance `https://api.openai.com/v1`.
    pub base_url: String,
    /// Its key; servers on the own machine often want none.
    pub key: Option<Secret>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the first token of an answer, or for a batch of embeddings, all retries included.
    pub first_token_timeout: Duration,
    /// Longest silence between two tokens.
    pub idle_timeout: Duration,
    /// How often a call that was refused for now (429, 5xx, no connection) is tried again before its first token.
    pub retries_max: u32,
    /// Longest wait before a retry. When the provider asks for a longer one, the call fails at once.
    pub retry_wait_max: Duration,
}

impl OpenAiOptions {
    /// The provider at `base_url`, with limits that suit a visitor who waits.
    pub fn new(base_url: impl Into<String>, key: Option<Secret>) -> Self {
        Self {
            base_url: base_url.into(),
            key,
            connect_timeout: Duration::from_secs(5),
            first_token_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(10),
            retries_max: 2,
            retry_wait_max: Duration::from_secs(8),
        }
    }
}

/// A provider that can be called.
#[derive(Debug, Clone)]
struct Endpoint {
    client: Client<OpenAIConfig>,
    http: Http,
    base_url: String,
    host: String,
    first_token_timeout: Duration,
    idle_timeout: Duration,
}

impl Endpoint {
    fn new(options: &OpenAiOptions) -> Result<Self, ServiceError> {
        let base_url = options.base_url.trim_end_matches('/').to_owned();
        let url = Url::parse(&base_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.password().is_none());
        let host = url.as_ref().and_then(Url::host_str).map(str::to_owned).ok_or_else(|| {
            refused(
                "the base URL is not one of http or https without a password: set it like https://api.openai.com/v1"
                    .to_owned(),
            )
        })?;
        let port = url
            .as_ref()
            .and_then(Url::port)
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let host = format!("{host}{port}");
        let http = Http::new(&host, options)?;
        // Everything that its default would read from the environment is set; the key is added beneath, by `Http`.
        let config = OpenAIConfig::default()
            .with_api_base(&base_url)
            .with_api_key("")
            .with_org_id("")
            .with_project_id("");
        let client = Client::build(http.client().clone(), config).with_http_service(http.clone());
        let OpenAiOptions {
            first_token_timeout,
            idle_timeout,
            ..
        } = *options;
        Ok(Self {
            client,
            http,
            base_url,
            host,
            first_token_timeout,
            idle_timeout,
        })
    }
}

fn refused(message: String) -> ServiceError {
    ServiceError::Refused {
        service: SERVICE,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_prints_the_key() {
        let options = OpenAiOptions::new("https://api.example.com/v1/", Some(Secret::new("sk-hush")));

        let model = OpenAi::new(&options).unwrap();

        assert!(!format!("{options:?} {model:?} {model:#?}").contains("sk-hush"));
    }

    #[test]
    fn a_base_url_or_a_key_that_cannot_work_is_refused_at_once() {
        for base_url in [
            "",
            "api.openai.com/v1",
            "ftp://example.com",
            "https://user:pass@example.com/v1",
        ] {
            let error = OpenAi::new(&OpenAiOptions::new(base_url, None)).unwrap_err();
            assert!(error.to_string().contains("https://api.openai.com/v1"), "{error}");
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
        let error = OpenAi::new(&OpenAiOptions::new(
            "https://example.com",
            Some(Secret::new("sk-hush\n")),
        ))
        .unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}
