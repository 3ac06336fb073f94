//! Chat by Anthropic's own protocol, the Messages API.
//!
//! The static system message is marked for the provider's prompt cache. One call is one attempt:
//! [`resilience`](super::resilience) tries again and keeps the time.

mod chat;
mod wire;

use reqwest::header::HeaderName;

pub use self::chat::Anthropic;
use super::{
    Secret, ServiceError,
    provider::{Address, Http, ProviderOptions},
};

/// What stands in logs, usage and health for this provider.
const SERVICE: &str = "anthropic";

/// Where the provider itself is; its protocol begins with `/v1` behind this.
pub const BASE_URL: &str = "https://api.anthropic.com";

/// The version of the protocol that is spoken here.
const VERSION: &str = "2023-06-01";

const VERSION_HEADER: HeaderName = HeaderName::from_static("anthropic-version");
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// A provider that can be called.
#[derive(Debug, Clone)]
struct Endpoint {
    http: Http,
    base_url: String,
}

impl Endpoint {
    fn new(options: &ProviderOptions) -> Result<Self, ServiceError> {
        let Address { base_url, host } = Address::parse(SERVICE, &options.base_url, BASE_URL)?;
        // Both spellings are in use; the official clients take the one without.
        let base_url = base_url.strip_suffix("/v1").unwrap_or(&base_url).to_owned();
        let mut headers = vec![(VERSION_HEADER, Secret::new(VERSION))];
        headers.extend(options.key.clone().map(|key| (KEY_HEADER, key)));
        Ok(Self {
            http: Http::new(SERVICE, &host, headers, options)?,
            base_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_prints_the_key() {
        let options = ProviderOptions::new(BASE_URL, Some(Secret::new("sk-ant-hush")));

        let model = Anthropic::new(&options).unwrap();

        assert!(!format!("{options:?} {model:?} {model:#?}").contains("hush"));
    }

    #[test]
    fn the_base_url_is_taken_with_and_without_the_version() {
        for base_url in ["https://api.anthropic.com", "https://api.anthropic.com/v1/"] {
            let endpoint = Endpoint::new(&ProviderOptions::new(base_url, None)).unwrap();
            assert_eq!(endpoint.base_url, "https://api.anthropic.com");
        }
        let error = Anthropic::new(&ProviderOptions::new("api.anthropic.com", None)).unwrap_err();
        assert!(error.to_string().contains(BASE_URL), "{error}");
    }
}
