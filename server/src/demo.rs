//! The page at `/demo`: one static file of ours, filled with the demo tenant's key.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};
use serde_json::json;
use uuid::Uuid;

use crate::{error::ApiError, state::App};

const PAGE: &str = include_str!("../assets/demo.html");
const SETTINGS: &str = "__DEMO_SETTINGS__";
const NONCE: &str = "__NONCE__";

pub(crate) async fn page(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let Some(demo) = &app.settings.demo else {
        return Err(ApiError::not_found("unknown_route", "there is nothing at this address"));
    };
    let settings = json!({"key": demo.public_key, "title": demo.title, "questions": demo.questions});
    // Inside a script element only `<` could end it.
    let settings = settings.to_string().replace('<', "\\u003c");
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Html(PAGE.replace(NONCE, &nonce).replace(SETTINGS, &settings))).into_response())
}
