//! Who is asking: the internal service by its secret, or anyone by a tenant's public key.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use sha2::{Digest, Sha256};
use stepgraph::TenantId;
use stepgraph_nodes::{
    domains::Domains,
    service::{Client, ClientStatus, Clients, Secret, Tier},
};
use subtle::ConstantTimeEq;

use crate::{
    error::{ApiError, ErrorCode},
    serving::{Authenticator, Refusal},
    state::App,
};

mod cached;

pub(crate) use cached::CachedClients;

/// The reason of a refusal by domain.
pub(crate) const DEPLOYMENT_NOT_ALLOWED: &str = "DEPLOYMENT_NOT_ALLOWED";

pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(crate) const INTERNAL_SECRET: HeaderName = HeaderName::from_static("x-internal-secret");

/// A caller who has proved who they are.
#[derive(Debug)]
pub(crate) enum Caller {
    /// The operator's own service; it names the tenant in each request.
    Internal,
    /// The holder of a public key; the key fixes the tenant.
    Direct(Box<Client>, Page),
}

impl Caller {
    /// Finds out who is asking. A secret that is sent decides alone: a wrong one is refused whatever key stands beside.
    async fn identify(app: &App, headers: &HeaderMap) -> Result<Self, ApiError> {
        if headers.contains_key(INTERNAL_SECRET) {
            return require_internal(app, headers).map(|()| Self::Internal);
        }
        let client = client_by_key(&*app.backend.clients, headers).await?;
        let page = check_origin(&client, headers, &app.dashboards)?;
        Ok(Self::Direct(Box::new(client), page))
    }

    /// The tenant this request is for. `claimed` is the `clientId` of the body, `page` the address of the page that it
    /// says it comes from; the latter counts only where the headers tell nothing.
    pub(crate) async fn client(self, app: &App, claimed: Option<&str>, page: Option<&str>) -> Result<Client, ApiError> {
        match self {
            Self::Internal => named_client(&*app.backend.clients, claimed).await,
            Self::Direct(_, Page::Unknown)
                if !page.and_then(host_of).is_some_and(|host| app.dashboards.cover(&host)) =>
            {
                Err(only_on_dashboards())
            }
            Self::Direct(client, _) => match claimed {
                Some(id) if id != client.tenant.as_str() => Err(ApiError::forbidden(
                    "client_mismatch",
                    "`clientId` is not the tenant of this public key",
                )),
                Some(_) | None => Ok(*client),
            },
        }
    }

    pub(crate) const fn is_internal(&self) -> bool {
        matches!(self, Self::Internal)
    }
}

/// Whether the page that carries the widget was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// It may carry it.
    Judged,
    /// The headers do not tell which page it is, and it matters.
    Unknown,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Self::identify(app, &parts.headers).await
    }
}

/// The internal service and nobody else: a public key does not help.
#[derive(Debug)]
pub(crate) struct Internal;

impl FromRequestParts<Arc<App>> for Internal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        require_internal(app, &parts.headers).map(|()| Self)
    }
}

/// Who watches the server: the internal service, or a collector that sends its secret as `Authorization: Bearer`, as those
/// can that know no other header.
#[derive(Debug)]
pub(crate) struct Operator;

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let bearer = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|sent| sent.as_bytes().strip_prefix(b"Bearer "));
        match bearer.filter(|_| !parts.headers.contains_key(INTERNAL_SECRET)) {
            Some(sent) => check_secret(app, sent).map(|()| Self),
            None => require_internal(app, &parts.headers).map(|()| Self),
        }
    }
}

fn require_internal(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let sent = headers
        .get(INTERNAL_SECRET)
        .ok_or_else(|| not_internal("send the internal secret in `X-Internal-Secret`"))?;
    check_secret(app, sent.as_bytes())
}

fn not_internal(message: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidApiKey, message).detail("reason", "internal_secret")
}

fn check_secret(app: &App, sent: &[u8]) -> Result<(), ApiError> {
    let matches = app
        .settings
        .internal_secret
        .as_ref()
        .is_some_and(|secret| equals(secret, sent));
    if matches {
        Ok(())
    } else {
        Err(not_internal("the internal secret is not right"))
    }
}

/// The active client whose public key is sent.
async fn client_by_key(clients: &dyn Clients, headers: &HeaderMap) -> Result<Client, ApiError> {
    let Some(key) = headers.get(API_KEY) else {
        return Err(ApiError::new(
            ErrorCode::InvalidApiKey,
            "send your public key in the header `x-api-key`",
        ));
    };
    let unknown =
        || ApiError::new(ErrorCode::InvalidApiKey, "this public key is not known").detail("reason", "unknown_key");
    let key = key.to_str().map_err(|_| unknown())?;
    let client = clients.by_key(key).await?.ok_or_else(unknown)?;
    check_status(&client)?;
    Ok(client)
}

/// Tenants by the public keys of the records.
pub(crate) struct ClientKeys {
    pub(crate) clients: Arc<dyn Clients>,
    /// Hosts of the pages from which the free tier may be used; empty for all.
    pub(crate) dashboards: Domains,
}

impl ClientKeys {
    async fn client(&self, headers: &HeaderMap) -> Result<Client, ApiError> {
        let client = client_by_key(&*self.clients, headers).await?;
        match check_origin(&client, headers, &self.dashboards)? {
            Page::Judged => Ok(client),
            Page::Unknown => Err(only_on_dashboards()),
        }
    }
}

#[async_trait]
impl Authenticator for ClientKeys {
    async fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal> {
        match self.client(headers).await {
            Ok(client) => Ok(client.tenant),
            Err(error) => Err(Refusal(error)),
        }
    }
}

/// The active client that the internal service names.
pub(crate) async fn named_client(clients: &dyn Clients, id: Option<&str>) -> Result<Client, ApiError> {
    let id = id
        .filter(|id| !id.is_empty())
        .ok_or_else(|| ApiError::invalid("client_id", "name the tenant in `clientId`"))?;
    let client = clients.by_id(id).await?.ok_or_else(|| {
        ApiError::invalid(
            "unknown_client",
            "there is no such client: add it with `stepgraph tenant add`",
        )
    })?;
    check_status(&client)?;
    Ok(client)
}

fn check_status(client: &Client) -> Result<(), ApiError> {
    let status = match client.status {
        ClientStatus::Active => return Ok(()),
        ClientStatus::Paused => "paused",
        ClientStatus::Disabled => "disabled",
    };
    let error = ApiError::new(ErrorCode::InvalidApiKey, format!("this client is {status}"));
    Err(error.detail("reason", "inactive_client").detail("status", status))
}

/// A page that carries the widget must lie on one of the tenant's domains; in the free tier on a dashboard, where the
/// operator lists any. Programs send no origin; a key is public, so the first rule keeps honest browsers in, not dishonest
/// programs out.
fn check_origin(client: &Client, headers: &HeaderMap, dashboards: &Domains) -> Result<Page, ApiError> {
    let origin = headers.get(header::ORIGIN).or_else(|| headers.get(header::REFERER));
    let is_bound_to_dashboards = client.tier == Tier::Free && !client.unlimited && !dashboards.is_empty();
    let own = Domains::new(&client.settings.allowed_domains);
    let domains = if is_bound_to_dashboards { dashboards } else { &own };
    if domains.is_empty() {
        return Ok(Page::Judged);
    }
    let Some(origin) = origin else {
        return Ok(if is_bound_to_dashboards {
            Page::Unknown
        } else {
            Page::Judged
        });
    };
    let host = origin.to_str().ok().and_then(host_of);
    if host.is_some_and(|host| domains.cover(&host)) {
        Ok(Page::Judged)
    } else if is_bound_to_dashboards {
        Err(only_on_dashboards())
    } else {
        Err(ApiError::forbidden(
            DEPLOYMENT_NOT_ALLOWED,
            "the widget may not be used on this domain",
        ))
    }
}

fn only_on_dashboards() -> ApiError {
    let message = "in the free tier the widget may be used on the dashboard alone: upgrade to use it on your own pages";
    ApiError::forbidden(DEPLOYMENT_NOT_ALLOWED, message).detail("tier", "free")
}

/// The lower-case host of an origin or address, without port.
fn host_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    uri.host().map(|host| host.trim_end_matches('.').to_ascii_lowercase())
}

/// Compares digests, so that neither content nor length of the secret shows in the time taken.
fn equals(secret: &Secret, sent: &[u8]) -> bool {
    let (secret, sent) = (Sha256::digest(secret.expose().as_bytes()), Sha256::digest(sent));
    secret.as_slice().ct_eq(sent.as_slice()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_from_origins_and_addresses() {
        assert_eq!(host_of("https://Shop.example:8443").as_deref(), Some("shop.example"));
        assert_eq!(
            host_of("https://shop.example/page?x=1").as_deref(),
            Some("shop.example")
        );
        assert_eq!(host_of("null"), Some("null".to_owned()));
    }

    #[test]
    fn a_secret_equals_itself_alone() {
        let secret = Secret::new("correct horse");

        assert!(equals(&secret, b"correct horse"));
        assert!(!equals(&secret, b"correct horsf"));
        assert!(!equals(&secret, b""));
    }
}
