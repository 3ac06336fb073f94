//! Whose call it is.

use std::{fmt, net::IpAddr, time::Duration};

use async_trait::async_trait;
use axum::http::{HeaderMap, Uri, header};
use sha2::{Digest, Sha256};
use stepgraph::{InvalidId, TenantId};
use stepgraph_nodes::service::Secret;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::{
    auth::API_KEY,
    error::{ApiError, ErrorCode},
};

/// Finds out which tenant a call is for. Nothing else does: no body, no path and no query can name a tenant.
///
/// ```
/// use axum::http::HeaderMap;
/// use stepgraph::TenantId;
/// use stepgraph_server::{Authenticator, Refusal};
///
/// /// Behind a proxy that has checked who it is, and that strips the header from what comes in.
/// struct Proxy;
///
/// #[stepgraph::async_trait]
/// impl Authenticator for Proxy {
///     async fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal> {
///         let name = headers.get("x-tenant").and_then(|name| name.to_str().ok());
///         let name = name.ok_or_else(|| Refusal::unknown_caller("the proxy has named no tenant"))?;
///         TenantId::authenticated(name).map_err(|error| Refusal::unknown_caller(error.to_string()))
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The tenant that these headers prove.
    ///
    /// # Errors
    /// Nobody we know, or not from there.
    async fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal>;

    /// Whether callers must be on this machine: the server then listens on no other address.
    fn loopback_only(&self) -> bool {
        false
    }
}

/// Why a call is not served.
#[derive(Debug, Clone)]
pub struct Refusal(pub(crate) ApiError);

impl Refusal {
    /// The caller has not proved who they are.
    pub fn unknown_caller(message: impl Into<String>) -> Self {
        Self(ApiError::new(ErrorCode::InvalidApiKey, message))
    }

    /// The caller is known, but may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self(ApiError::forbidden("forbidden", message))
    }

    /// The caller asks too often, and may again after this time.
    pub fn too_often(message: impl Into<String>, again_after: Duration) -> Self {
        Self(ApiError::new(ErrorCode::RateLimited, message).retry_after(again_after))
    }

    /// Something that the run needs is not there at the moment.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self(ApiError::new(ErrorCode::ServiceUnavailable, message))
    }
}

/// Tenants by keys that are known when the server starts, sent as `x-api-key`.
///
/// ```
/// use stepgraph_server::FixedKeys;
///
/// let keys = FixedKeys::new([("acme", "k-3f9a21c07d5e4b68"), ("globex", "k-91be04d7c2aa4f13")])?;
/// assert_eq!(format!("{keys:?}"), r#"FixedKeys { tenants: [TenantId("acme"), TenantId("globex")] }"#);
/// # Ok::<(), stepgraph::InvalidId>(())
/// ```
#[derive(Clone)]
pub struct FixedKeys(Vec<(TenantId, [u8; 32])>);

impl FixedKeys {
    /// Each tenant with its key.
    ///
    /// # Errors
    /// A tenant's name is none.
    pub fn new<T: Into<String>, K: Into<String>>(keys: impl IntoIterator<Item = (T, K)>) -> Result<Self, InvalidId> {
        let keys = keys.into_iter().map(|(tenant, key)| {
            let key = Secret::new(key.into());
            Ok((TenantId::authenticated(tenant)?, digest(key.expose().as_bytes())))
        });
        keys.collect::<Result<_, InvalidId>>().map(Self)
    }

    /// Looks at every key, so that the time taken says nothing of which one was near.
    fn of(&self, sent: &[u8]) -> Option<&TenantId> {
        let sent = digest(sent);
        let mut found = u64::MAX;
        for (at, (_, key)) in (0_u64..).zip(&self.0) {
            let same: Choice = key.ct_eq(&sent);
            found.conditional_assign(&at, same);
        }
        let at = usize::try_from(found).ok()?;
        self.0.get(at).map(|(tenant, _)| tenant)
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl fmt::Debug for FixedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants: Vec<_> = self.0.iter().map(|(tenant, _)| tenant).collect();
        f.debug_struct("FixedKeys").field("tenants", &tenants).finish()
    }
}

#[async_trait]
impl Authenticator for FixedKeys {
    async fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal> {
        let key = headers
            .get(API_KEY)
            .ok_or_else(|| Refusal::unknown_caller("send your key in the header `x-api-key`"))?;
        let tenant = self.of(key.as_bytes()).cloned();
        tenant.ok_or_else(|| Refusal::unknown_caller("this key is not known"))
    }
}

/// Every call is this one tenant's, without a key: for development, on this machine alone. A browser's page of another
/// site is refused, and so is a name that somebody else has pointed at this machine.
#[derive(Debug, Clone)]
pub struct SingleTenant(TenantId);

impl SingleTenant {
    /// Serves this tenant without asking who calls.
    ///
    /// # Errors
    /// The name is none.
    pub fn without_keys_for_development(tenant: impl Into<String>) -> Result<Self, InvalidId> {
        TenantId::authenticated(tenant).map(Self)
    }
}

#[async_trait]
impl Authenticator for SingleTenant {
    async fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal> {
        for name in [header::HOST, header::ORIGIN] {
            if headers
                .get(&name)
                .is_some_and(|value| !value.to_str().is_ok_and(is_this_machine))
            {
                return Err(Refusal::forbidden(format!(
                    "without keys only this machine is served, and `{name}` names another"
                )));
            }
        }
        Ok(self.0.clone())
    }

    fn loopback_only(&self) -> bool {
        true
    }
}

/// Whether `host:port` or `scheme://host:port` is this machine.
fn is_this_machine(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    let Some(host) = uri.as_ref().and_then(Uri::host) else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[tokio::test]
    async fn each_key_is_its_own_tenants_and_any_other_is_nobodys() {
        let keys = FixedKeys::new([("acme", "one"), ("globex", "two")]).unwrap();

        for (key, tenant) in [
            ("one", Some("acme")),
            ("two", Some("globex")),
            ("three", None),
            ("", None),
        ] {
            let found = keys.tenant(&headers("x-api-key", key)).await.ok();
            assert_eq!(found.as_ref().map(TenantId::as_str), tenant, "{key}");
        }
        assert!(keys.tenant(&HeaderMap::new()).await.is_err());
        assert!(FixedKeys::new([("", "one")]).is_err());
    }

    #[tokio::test]
    async fn without_keys_pages_of_other_sites_and_foreign_names_of_this_machine_are_refused() {
        let one = SingleTenant::without_keys_for_development("me").unwrap();
        let cases = [
            ("host", "127.0.0.1:8000", true),
            ("host", "localhost:8000", true),
            ("host", "[::1]:8000", true),
            ("host", "evil.example:8000", false),
            ("origin", "http://localhost:3000", true),
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
        ];
        for (name, value, served) in cases {
            assert_eq!(
                one.tenant(&headers(name, value)).await.is_ok(),
                served,
                "{name}: {value}"
            );
        }
        assert!(one.loopback_only());
    }
}
