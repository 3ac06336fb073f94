//! What the internal service asks about clients.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State};
use stepgraph_nodes::service::{Client, ClientStatus, Tier};

use super::{Params, parsed};
use crate::{
    auth::Internal,
    error::ApiError,
    state::App,
    wire::{KeyBody, ValidateReply},
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
    let inactive = match client.status {
        ClientStatus::Active => None,
        ClientStatus::Paused => Some("this client is paused"),
        ClientStatus::Disabled => Some("this client is disabled"),
    };
    let (tier, model) = match client.tier {
        Tier::Free => ("free", &app.settings.free_model),
        Tier::Paid => ("paid", &app.settings.paid_model),
    };
    ValidateReply {
        valid: inactive.is_none(),
        client_id: Some(client.tenant.as_str().to_owned()),
        tier: Some(tier),
        model: Some(client.settings.model.as_ref().unwrap_or(model).as_str().to_owned()),
        allowed_domains: Some(client.settings.allowed_domains),
        error_message: inactive.map(str::to_owned),
    }
}

fn refused(why: &str) -> ValidateReply {
    ValidateReply {
        error_message: Some(why.to_owned()),
        ..ValidateReply::default()
    }
}
