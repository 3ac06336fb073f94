//! Tells the existing service how documents come along, where it wants to know.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Map, Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::service::{Document, DocumentStatus, Secret, tls};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{auth::INTERNAL_SECRET, wire::current_step};

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

/// The sending end; updates leave in order, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Callback(mpsc::Sender<Value>);

impl Callback {
    /// Sends to `origin` from a task of the server's own; once `closing`, what waits is sent and the task ends.
    pub(super) fn new(origin: &str, secret: Option<Secret>, tracker: &TaskTracker, closing: CancellationToken) -> Self {
        tls::install();
        let (sender, mut updates) = mpsc::channel::<Value>(WAITING_MAX);
        let url = format!("{}{PATH}", origin.trim_end_matches('/'));
        tracker.spawn(async move {
            let http = Client::new();
            loop {
                let update = tokio::select! {
                    biased;
                    Some(update) = updates.recv() => update,
                    () = closing.cancelled() => return,
                };
                send(&http, &url, secret.as_ref(), &update).await;
            }
        });
        Self(sender)
    }

    /// Passes the record on. Never fails: an ingestion does not depend on who watches it.
    pub(super) async fn report(&self, tenant: &TenantId, document: &Document) {
        let update = update(tenant, document);
        let result = matches!(document.status, DocumentStatus::Completed | DocumentStatus::Failed);
        if result {
            let _ = self.0.send(update).await;
        } else if self.0.try_send(update).is_err() {
            tracing::debug!(%tenant, document = %document.id, "a progress update was left out: too many are waiting");
        }
    }
}

async fn send(http: &Client, url: &str, secret: Option<&Secret>, update: &Value) {
    let mut wait = BACK_OFF;
    for attempt in 1..=TRIES {
        let mut request = http.post(url).timeout(TRY_LIMIT).json(update);
        if let Some(secret) = secret {
            request = request.header(INTERNAL_SECRET.as_str(), secret.expose());
        }
        match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, attempt, "the progress call-back failed"),
        }
        if attempt < TRIES {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
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
