//! That a tenant comes near its limit: kept once for each window, until its owner was told.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stepgraph::TenantId;

use crate::service::ServiceError;

/// Per cent of the limit at which a tenant's owner is told, where the tenant has no number of its own.
pub const ALERT_THRESHOLD_PERCENT: u8 = 80;

/// How long an alert is kept.
const KEPT: TimeDelta = TimeDelta::days(400);

/// How far a tenant has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    /// At the tenant's share of its limit.
    Threshold,
    /// At the limit.
    Limit,
}

/// How much of its limit a tenant has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// How far it has come.
    pub level: AlertLevel,
    /// Per cent of the limit that this is.
    pub percent: u8,
    /// Messages of the window so far.
    pub count: u64,
    /// Messages that the tenant may send in it.
    pub limit: u64,
    /// When the window began.
    pub window_start: DateTime<Utc>,
    /// When the next one begins.
    pub resets_at: DateTime<Utc>,
    /// Where the owner wants to be told, if anywhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub webhook: Option<String>,
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// It is to be sent.
    Waiting,
    /// The receiver took it.
    Sent,
    /// The receiver did not take it, however often it was tried.
    Failed,
    /// The owner has named no receiver.
    Unwanted,
}

/// Keeps alerts. A window has one of each level, whichever process noticed it.
#[async_trait]
pub trait Alerts: Send + Sync + 'static {
    /// Keeps the alert, waiting where it has a webhook; says whether it is new.
    async fn raise(&self, tenant: &TenantId, alert: &Alert) -> Result<bool, ServiceError>;

    /// Alerts of all tenants that wait, oldest first. For `hold` nobody else is given them: that long the caller has to
    /// send and [`settle`](Self::settle) them.
    async fn claim(&self, limit: u32, hold: Duration) -> Result<Vec<(TenantId, Alert)>, ServiceError>;

    /// Notes what became of it.
    async fn settle(&self, tenant: &TenantId, alert: &Alert, delivery: Delivery) -> Result<(), ServiceError>;

    /// The tenant's last alerts, newest window first, the limit before the threshold.
    async fn alerts(&self, tenant: &TenantId, limit: u32) -> Result<Vec<(Alert, Delivery)>, ServiceError>;
}

impl Alert {
    /// What becomes of it at first.
    pub(crate) const fn first_delivery(&self) -> Delivery {
        match self.webhook {
            Some(_) => Delivery::Waiting,
            None => Delivery::Unwanted,
        }
    }

    /// Alerts of windows before this one's are too old when it is kept.
    pub(crate) fn keeps_since(&self) -> DateTime<Utc> {
        self.window_start
            .checked_sub_signed(KEPT)
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
    }
}
