//! Tells the existing service how documents come along, where it wants to know.

use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::{
    service::{Document, DocumentStatus, Secret},
    trace::{self, TraceParent},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::INTERNAL_SECRET,
    guard::Guard,
    hook::{self, Message},
    wire::current_step,
};

/// Where the receiver listens.
const PATH: &str = "/api/internal/document-progress";
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
    let mut headers = HeaderMap::new();
    if let Some(mut secret) = secret.and_then(|secret| HeaderValue::from_str(secret.expose()).ok()) {
        secret.set_sensitive(true);
        headers.insert(INTERNAL_SECRET, secret);
    }
    if let Some(trace) = update
        .trace
        .and_then(|trace| HeaderValue::try_from(trace.to_string()).ok())
    {
        headers.insert(trace::TRACEPARENT, trace);
    }
    let message = Message {
        url,
        headers,
        body: &update.body,
    };
    hook::post(guard, &message).await;
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
