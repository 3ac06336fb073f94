//! Tells the owners of tenants that these come near their limits, where they want to be told.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::SecondsFormat;
use serde_json::{Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::service::{Alert, Alerts, Delivery};
use tokio_util::sync::CancellationToken;

use crate::{
    guard::Guard,
    hook::{self, Message, POST_LIMIT},
};

/// How often a server looks for alerts that wait.
const EVERY: Duration = Duration::from_secs(5);
/// Alerts that are sent side by side at most.
const AT_ONCE: u32 = 16;
/// How long alerts are held that are being sent: longer than it takes, so that nobody else sends them meanwhile.
const HOLD: Duration = POST_LIMIT.saturating_mul(2);
/// The same for every delivery of an alert, as it may come twice.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Sends what waits.
pub(crate) struct Courier {
    pub(crate) alerts: Arc<dyn Alerts>,
    pub(crate) guard: Guard,
}

impl Courier {
    /// At once and then every few seconds, until it is told to stop. What is on its way then is sent to its end.
    pub(crate) async fn work(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            while self.send_some().await == usize::try_from(AT_ONCE).unwrap_or(usize::MAX) {
                if stop.is_cancelled() {
                    return;
                }
            }
        }
    }

    /// Says how many there were.
    async fn send_some(&self) -> usize {
        let claimed = match self.alerts.claim(AT_ONCE, HOLD).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(%error, "alerts that wait cannot be read: tried again in a few seconds");
                return 0;
            }
        };
        futures_util::future::join_all(claimed.iter().map(|(tenant, alert)| self.send(tenant, alert))).await;
        claimed.len()
    }

    async fn send(&self, tenant: &TenantId, alert: &Alert) {
        let Some(url) = &alert.webhook else { return };
        let id = id(tenant, alert);
        let headers = HeaderValue::try_from(&id).map(|id| HeaderMap::from_iter([(IDEMPOTENCY_KEY, id)]));
        let message = Message {
            url,
            headers: headers.unwrap_or_default(),
            body: &body(&id, tenant, alert),
        };
        let delivery = if hook::post(&self.guard, &message).await {
            Delivery::Sent
        } else {
            tracing::warn!(%tenant, level = ?alert.level, "the alert of a limit could not be delivered");
            Delivery::Failed
        };
        if let Err(error) = self.alerts.settle(tenant, alert, delivery).await {
            tracing::warn!(%tenant, %error, "an alert that was sent is not noted as such, and may be sent again");
        }
    }
}

/// `{tenant}:{window}:{level}`, with the window as unix seconds.
fn id(tenant: &TenantId, alert: &Alert) -> String {
    let level = level(alert);
    format!("{tenant}:{}:{level}", alert.window_start.timestamp())
}

fn level(alert: &Alert) -> String {
    json!(alert.level).as_str().unwrap_or_default().to_owned()
}

fn body(id: &str, tenant: &TenantId, alert: &Alert) -> Value {
    json!({
        "type": "usage.alert",
        "id": id,
        "clientId": tenant.as_str(),
        "level": level(alert),
        "percent": alert.percent,
        "count": alert.count,
        "limit": alert.limit,
        "windowStart": alert.window_start.to_rfc3339_opts(SecondsFormat::Secs, true),
        "resetsAt": alert.resets_at.to_rfc3339_opts(SecondsFormat::Secs, true),
    })
}
