//! Requests that their callers have named: each has one run, counted once, whatever process it reaches and however often
//! the server has been started anew in between. Names are kept in the records for 24 hours.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::service::{Claim, NamedRequest, NamedState, RequestName};
use tokio::time::{Instant, sleep};

use super::{Again, ChatRequest};
use crate::{
    backend::Answer,
    error::{ApiError, ErrorCode},
    runs::{BUDGET_GRACE, Entered, Reader, RequestKey, Runs},
    state::App,
    trace,
};

/// How often a request that another process works on is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl ChatRequest {
    /// Answers as the request of this name was answered, joins its run, goes on with it, or begins it.
    pub(super) async fn open_named(&self, app: &Arc<App>, request: &RequestName) -> Result<Reader, ApiError> {
        let (tenant, names) = (&self.client.tenant, &app.backend.named);
        let longest = app.settings.answer_budget + BUDGET_GRACE;
        let give_up_at = Instant::now() + longest;
        loop {
            if let Some(reader) = app.runs.join(&self.key, Instant::now()) {
                return Ok(reader);
            }
            let found = match names.claim(tenant, request, self.trace).await? {
                Claim::Ours => return self.begin(app, self.trace, Again::No).await,
                Claim::Known(found) => found,
            };
            if let Some(reader) = self.answered(app, request, &found).await? {
                return Ok(reader);
            }
            if is_to_be_taken(&found, longest) && names.take_over(tenant, request, &found).await? {
                let again = match found.state {
                    NamedState::Claimed => Again::No,
                    NamedState::Begun | NamedState::Failed | NamedState::Answered(_) => Again::Yes,
                };
                return self.begin(app, found.run, again).await;
            }
            if Instant::now() >= give_up_at {
                return Err(ApiError::new(
                    ErrorCode::ServiceUnavailable,
                    "another server still works on this request, please try again",
                )
                .retry_after(Duration::from_secs(1)));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// The answer, where it is kept with the name or on the session's thread: a process may have gone between the two.
    async fn answered(
        &self,
        app: &Arc<App>,
        request: &RequestName,
        found: &NamedRequest,
    ) -> Result<Option<Reader>, ApiError> {
        let answer = if let NamedState::Answered(kept) = &found.state {
            serde_json::from_value::<Answer>(kept.clone()).map_err(|error| {
                tracing::error!(run = %found.run, %error, "a kept answer cannot be read");
                ApiError::new(ErrorCode::ProcessingError, "something went wrong on our side")
            })?
        } else {
            let on_thread = app
                .backend
                .chat
                .answered(&self.client, &self.body.session_id, found.run)
                .await;
            let Ok(Some(answer)) = on_thread else { return Ok(None) };
            note(app, &self.client.tenant, request, found.run, Some(&answer)).await;
            answer
        };
        let quota = app.limiter.standing(&self.client, trace::now()).await;
        Ok(Some(Runs::replay(found.run, answer, quota)))
    }

    async fn begin(&self, app: &Arc<App>, run: RunId, again: Again) -> Result<Reader, ApiError> {
        match app.runs.enter(self.key.clone(), self.audience, run, Instant::now()) {
            Entered::Joined(reader) => Ok(reader),
            Entered::First(seat) | Entered::Repeat(seat) => self.start(app, seat, again).await,
        }
    }

    /// Notes how the run ends, once it has. It watches, it does not read: a run that nobody reads may stop.
    pub(super) fn note_the_end(&self, app: &Arc<App>, reader: &Reader) {
        let Some(request) = self.name() else { return };
        let (app, tenant, mut watch) = (Arc::clone(app), self.client.tenant.clone(), reader.watch());
        let tracker = app.tracker.clone();
        tracker.spawn(async move {
            let run = watch.run();
            match watch.outcome().await {
                Ok(answer) => note(&app, &tenant, &request, run, Some(&answer)).await,
                Err(failure) if failure.code.is_retryable() => note(&app, &tenant, &request, run, None).await,
                Err(_) => release(&app, &tenant, &request, run).await,
            }
        });
    }

    pub(super) fn name(&self) -> Option<RequestName> {
        match &self.key.request {
            RequestKey::Named(name) => Some(RequestName {
                session: self.body.session_id.clone(),
                name: name.clone(),
            }),
            RequestKey::Message(_) => None,
        }
    }
}

/// Notes an answer, or that there is none. Where it cannot be noted the thread still has the answer.
async fn note(app: &App, tenant: &TenantId, request: &RequestName, run: RunId, answer: Option<&Answer>) {
    let state = match answer.map(serde_json::to_value) {
        Some(Ok(answer)) => NamedState::Answered(answer),
        Some(Err(_)) | None => NamedState::Failed,
    };
    if let Err(error) = app.backend.named.note(tenant, request, run, &state).await {
        tracing::warn!(%run, %error, "how a named request ended could not be kept");
    }
}

/// Gives the name of a refused request free.
pub(super) async fn release(app: &App, tenant: &TenantId, request: &RequestName, run: RunId) {
    if let Err(error) = app.backend.named.release(tenant, request, run).await {
        tracing::warn!(%run, %error, "the name of a refused request could not be given free");
    }
}

/// Whether nobody works on it any more: its run has failed, its process is gone, or it has had all the time there is.
fn is_to_be_taken(found: &NamedRequest, longest: Duration) -> bool {
    let waited = trace::now().signed_duration_since(found.taken_at);
    let is_late = TimeDelta::from_std(longest).is_ok_and(|longest| waited > longest);
    found.state == NamedState::Failed || found.is_left || is_late
}
