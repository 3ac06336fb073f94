//! Chat and embeddings from any provider that speaks the protocol of `OpenAI`: itself, Azure's `/openai/v1`, vLLM, Ollama,
//! llama.cpp and others.
//!
//! The protocol is async-openai's; the transport beneath it is ours, which adds the key and the caller's trace and puts
//! in words what went wrong. One call is one attempt: [`resilience`](super::resilience) tries again and keeps the time.

mod chat;
mod embedder;
mod transport;
mod wire;

use async_openai::{Client, config::OpenAIConfig};
use reqwest::header::{AUTHORIZATION, HeaderName};

use self::transport::Transport;
pub use self::{chat::OpenAi, embedder::OpenAiEmbedder};
use super::{
    Secret, ServiceError,
    provider::{Address, Http, ProviderOptions},
};

/// What stands in logs, usage and health for this provider.
const SERVICE: &str = "openai";

/// Azure takes its keys under this name too, and some of its addresses only so.
const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");

/// Where Azure's resources are.
const AZURE_HOSTS: [&str; 3] = [
    ".openai.azure.com",
    ".services.ai.azure.com",
    ".cognitiveservices.azure.com",
];

/// The first to rename the limit of tokens.
const OPENAI_HOST: &str = "api.openai.com";

/// A provider that can be called.
#[derive(Debug, Clone)]
struct Endpoint {
    client: Client<OpenAIConfig>,
    http: Http,
    base_url: String,
    /// Whether it calls the limit of tokens `max_completion_tokens`.
    is_limit_renamed: bool,
}

impl Endpoint {
    fn new(options: &ProviderOptions) -> Result<Self, ServiceError> {
        let Address { base_url, host } = Address::parse(SERVICE, &options.base_url, "https://api.openai.com/v1")?;
        let is_azure = AZURE_HOSTS.iter().any(|end| host.ends_with(end));
        let mut headers = Vec::new();
        if let Some(key) = &options.key {
            headers.push((AUTHORIZATION, Secret::new(format!("Bearer {}", key.expose()))));
            if is_azure {
                headers.push((AZURE_KEY, key.clone()));
            }
        }
        let http = Http::new(SERVICE, &host, headers, options)?;
        // Everything that its default would read from the environment is set; the key is added beneath, by `Http`.
        let config = OpenAIConfig::default()
            .with_api_base(&base_url)
            .with_api_key("")
            .with_org_id("")
            .with_project_id("");
        let client = Client::build(http.client().clone(), config).with_http_service(Transport::new(http.clone()));
        Ok(Self {
            client,
            http,
            base_url,
            is_limit_renamed: is_azure || host == OPENAI_HOST,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_prints_the_key() {
        let options = ProviderOptions::new("https://api.example.com/v1/", Some(Secret::new("sk-hush")));

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
            "https://example.openai.azure.com/openai/deployments/a?api-version=2024-10-21",
        ] {
            let error = OpenAi::new(&ProviderOptions::new(base_url, None)).unwrap_err();
            assert!(error.to_string().contains("https://api.openai.com/v1"), "{error}");
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
        let error = OpenAi::new(&ProviderOptions::new(
            "https://example.com",
            Some(Secret::new("sk-hush\n")),
        ))
        .unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    #[test]
    fn the_limit_of_tokens_has_the_name_that_the_provider_knows() {
        for (base_url, is_renamed) in [
            ("https://api.openai.com/v1", true),
            ("https://mine.openai.azure.com/openai/v1", true),
            ("http://127.0.0.1:8080/v1", false),
            ("https://api.openai.com.example.org/v1", false),
        ] {
            let endpoint = Endpoint::new(&ProviderOptions::new(base_url, None)).unwrap();
            assert_eq!(endpoint.is_limit_renamed, is_renamed, "{base_url}");
        }
    }
}
