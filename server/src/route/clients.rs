//! What the internal service asks about clients.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::PathRejection},
};
use stepgraph_nodes::service::{Client, ClientStatus, Tier};

use super::{Params, body::parsed};
use crate::{
    auth::Internal,
    backend::COMPLETION_TOKENS_MAX,
    error::ApiError,
    limit,
    state::App,
    wire::{ConfigReply, KeyBody, ValidateReply},
};

/// Tells whether a public key is good, and whose it is. An unknown key is an answer, not an error.
pub(crate) async fn validate(
    State(app): State<Arc<App>>,
    _: Internal,
    Params(query): Params<KeyBody>,
    body: Bytes,
) -> Result<Json<ValidateReply>, ApiError> {
    let body: Option<KeyBody> = if body.is_empty() { None } else { Some(parsed(&body)?) };
    let key = body.and_then(|body| body.api_key).or(query.api_key);
    let key = key.ok_or_else(|| ApiError::invalid("api_key", "send the key in `apiKey`"))?;
    let reply = match app.backend.clients.by_key(&key).await? {
        Some(client) => described(&app, client),
        None => refused("unknown API key"),
    };
    Ok(Json(reply))
}

fn described(app: &App, client: Client) -> ValidateReply {
    let (tier, model) = tier(app, &client);
    let inactive = match client.status {
        ClientStatus::Active => None,
        ClientStatus::Paused => Some("this client is paused"),
        ClientStatus::Disabled => Some("this client is disabled"),
    };
    ValidateReply {
        valid: inactive.is_none(),
        client_id: Some(client.tenant.as_str().to_owned()),
        tier: Some(tier),
        model: Some(model),
        allowed_domains: Some(client.settings.allowed_domains),
        error_message: inactive.map(str::to_owned),
    }
}

/// The tier's name, and the model that the client is served by.
fn tier(app: &App, client: &Client) -> (&'static str, String) {
    let (tier, model) = match client.tier {
        Tier::Free => ("free", &app.settings.free_model),
        Tier::Paid => ("paid", &app.settings.paid_model),
    };
    let model = client.settings.model.as_ref().unwrap_or(model);
    (tier, model.as_str().to_owned())
}

/// `GET /internal/client/{id}/config`: how a client is served, whether it is served now or not.
pub(crate) async fn config(
    State(app): State<Arc<App>>,
    _: Internal,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<ConfigReply>, ApiError> {
    let unknown = || ApiError::not_found("unknown_client", "there is no such client");
    let Ok(Path(id)) = path else { return Err(unknown()) };
    let client = app.backend.clients.by_id(&id).await?.ok_or_else(unknown)?;
    let (tier, model) = tier(&app, &client);
    let window = app.settings.limits.window.as_secs().max(1);
    let limit = limit::messages_max(&app.settings.limits, &client);
    Ok(Json(ConfigReply {
        client_id: client.tenant.as_str().to_owned(),
        tier,
        status: match client.status {
            ClientStatus::Active => "active",
            ClientStatus::Paused => "paused",
            ClientStatus::Disabled => "disabled",
        },
        model,
        max_tokens_per_request: client.settings.max_tokens.unwrap_or(COMPLETION_TOKENS_MAX),
        max_requests_per_minute: limit.map(|limit| limit.saturating_mul(60).div_ceil(window)),
        max_requests_per_window: limit,
        window_seconds: window,
    }))
}

fn refused(why: &str) -> ValidateReply {
    ValidateReply {
        error_message: Some(why.to_owned()),
        ..ValidateReply::default()
    }
}
