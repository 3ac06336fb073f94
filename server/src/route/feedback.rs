//! What readers thought of answers.

use std::{sync::Arc, time::Duration};

use axum::{Json as Reply, extract::State};
use stepgraph::{RunId, TenantId};
use tokio::time::{Instant, sleep};

use super::Json;
use crate::{
    auth::Caller,
    error::ApiError,
    state::App,
    wire::{FeedbackBody, SuccessReply},
};

/// How long a rating waits for its answer to reach the log, which it does a moment after its reader has it.
const LOG_LIMIT: Duration = Duration::from_secs(3);
/// How often the log is looked at meanwhile.
const LOG_POLL: Duration = Duration::from_millis(50);

/// `POST /feedback`: the last rating of an answer counts.
pub(crate) async fn rate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<FeedbackBody>,
) -> Result<Reply<SuccessReply>, ApiError> {
    let client = caller.client(&app, body.client_id.as_deref(), None).await?;
    body.validate()?;
    if rated(&app, &client.tenant, &body).await? {
        Ok(Reply(SuccessReply { success: true }))
    } else {
        Err(ApiError::not_found(
            "unknown_trace",
            "there is no answer of this `traceId`",
        ))
    }
}

async fn rated(app: &App, tenant: &TenantId, body: &FeedbackBody) -> Result<bool, ApiError> {
    let run = RunId::from(body.trace_id);
    let deadline = Instant::now() + LOG_LIMIT;
    loop {
        let feedbacks = &app.backend.feedbacks;
        if feedbacks
            .rate(tenant, run, body.rating, body.comment.as_deref())
            .await?
        {
            return Ok(true);
        }
        // Only an answer of a moment ago is on its way to the log; a made-up trace is refused at once.
        if !app.runs.has(tenant, run) || Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(LOG_POLL).await;
    }
}
