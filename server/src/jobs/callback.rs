//! Tells the existing service how documents come along, where it wants to know.

use std::time::Duration;

use serde_json::{Map, Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::{
    service::{Document, DocumentStatus, Secret},
    trace::{self, TraceParent},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{auth::INTERNAL_SECRET, guard::Guard, wire::current_step};

/// Where the receiver listens.
const PATH: &str = "/api/internal/document-progress";
/// How often one update is sent before it is given up.
const TRIES: u32 = 3;
/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// The wait before the second try; it doubles with each.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Updates that wait to be sent at most. More than that and updates on the way are left out, results wait.
const WAITING_MAX: usize = 256;

/// What is sent, and the trace of the request that it comes from.
#[derive(Debug)]
struct Update {
    body: Value,
    trace: Option<TraceParent>,
}

/// The sending end; updates leave in order, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Callback(mpsc::Sender<Update>);

impl Callback {
    /// Sends to `origin` from a task of the server's own; once `closing`, what waits is sent and the task ends.
    pub(super) fn new(
        origin: &str,
        guard: Guard,
        secret: Option<Secret>,
        tracker: &TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let (sender, mut updates) = mpsc::channel::<Update>(WAITING_MAX);
        let url = format!("{}{PATH}", origin.trim_end_matches('/'));
        tracker.spawn(async move {
            loop {
                let update = tokio::select! {
                    biased;
                    Some(update) = updates.recv() => update,
                    () = closing.cancelled() => return,
                };
                send(&guard, &url, secret.as_ref(), &update).await;
            }
        });
        Self(sender)
    }

    /// Passes the record on. Never fails: an ingestion does not depend on who watches it.
    pub(super) async fn report(&self, tenant: &TenantId, document: &Document) {
        let update = Update {
            body: update(tenant, document),
            trace: trace::current(),
        };
        let result = matches!(document.status, DocumentStatus::Completed | DocumentStatus::Failed);
        if result {
            let _ = self.0.send(update).await;
        } else if self.0.try_send(update).is_err() {
            tracing::debug!(%tenant, document = %document.id, "a progress update was left out: too many are waiting");
        }
    }
}

async fn send(guard: &Guard, url: &str, secret: Option<&Secret>, update: &Update) {
    let mut wait = BACK_OFF;
    for attempt in 1..=TRIES {
        match try_once(guard, url, secret, update).await {
            Ok(()) => return,
            Err(why) => tracing::warn!(%why, attempt, "the progress call-back failed"),
        }
        if attempt < TRIES {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

/// The name is looked up for each try: the receiver may have moved.
async fn try_once(guard: &Guard, url: &str, secret: Option<&Secret>, update: &Update) -> Result<(), String> {
    let allowed = guard.allow(url).await.map_err(|error| error.to_string())?;
    let mut request = allowed.client.post(allowed.url).timeout(TRY_LIMIT).json(&update.body);
    if let Some(secret) = secret {
        request = request.header(INTERNAL_SECRET.as_str(), secret.expose());
    }
    if let Some(trace) = update.trace {
        request = request.header(trace::TRACEPARENT, trace.to_string());
    }
    let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    if answer.status().is_success() {
        Ok(())
    } else {
        // A redirect, too, is no success: it is not followed.
        Err(format!("the receiver answered {}", answer.status()))
    }
}

/// Both spellings of each name: no receiver exists yet that would decide which one it reads.
fn update(tenant: &TenantId, document: &Document) -> Value {
    let fields = [
        ("clientId", "client_id", json!(tenant.as_str())),
        ("documentId", "document_id", json!(document.id.as_str())),
        ("status", "status", json!(document.status)),
        ("progress", "progress", json!(document.progress)),
        ("currentStep", "current_step", json!(current_step(document.status))),
        ("chunksTotal", "chunks_total", json!(document.chunks_total)),
        ("chunksProcessed", "chunks_processed", json!(document.chunks_processed)),
        ("errorMessage", "error_message", json!(document.error_message)),
    ];
    let mut update = Map::new();
    for (camel, snake, value) in fields {
        if !value.is_null() {
            update.insert(camel.to_owned(), value.clone());
            update.insert(snake.to_owned(), value);
        }
    }
    Value::Object(update)
}
