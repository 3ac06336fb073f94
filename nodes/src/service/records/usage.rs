//! What was booked for each tenant.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stepgraph::TenantId;
use uuid::Uuid;

use super::ClientSettings;
use crate::service::ServiceError;

/// Money in millionths of a cent: one token of a small model costs a few of them.
///
/// ```
/// use stepgraph_nodes::service::Cost;
///
/// // A thousand tokens at 15 cents a million.
/// let cost = Cost::from_microcents(1_000 * 15);
/// assert_eq!((cost.microcents(), cost.cents()), (15_000, 0));
/// assert_eq!(Cost::from_microcents(1_500_000).cents(), 2);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(u64);

impl Cost {
    const MICROCENTS: u64 = 1_000_000;

    /// So many millionths of a cent.
    #[must_use]
    pub const fn from_microcents(microcents: u64) -> Self {
        Self(microcents)
    }

    /// Millionths of a cent.
    #[must_use]
    pub const fn microcents(self) -> u64 {
        self.0
    }

    /// Whole cents, half a cent rounded up.
    #[must_use]
    pub const fn cents(self) -> u64 {
        self.0.saturating_add(Self::MICROCENTS / 2) / Self::MICROCENTS
    }
}

/// What was booked in one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageHour {
    /// The day, UTC.
    pub date: NaiveDate,
    /// 0 to 23, UTC.
    pub hour: u8,
    /// Messages answered.
    pub request_count: u64,
    /// Those of them above the limit.
    pub overage_count: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Tokens of prompts that the provider had read before.
    pub cached_tokens: u64,
    /// What they cost, in millionths of a cent.
    #[serde(rename = "costMicrocents")]
    pub cost: Cost,
}

/// What was booked in one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageDay {
    /// The day, UTC.
    pub date: NaiveDate,
    /// Questions and answers.
    pub total_messages: u64,
    /// Answers.
    pub assistant_messages: u64,
    /// Tokens of prompts and answers.
    pub total_tokens: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Tokens of prompts that the provider had read before.
    pub cached_tokens: u64,
    /// What they cost, rounded once for the whole day.
    pub estimated_cost_cents: u64,
    /// Chat sessions.
    pub unique_sessions: u64,
    /// Mean time to an answer.
    pub avg_latency_ms: u64,
    /// The time that 95 of 100 answers stay within.
    pub p95_latency_ms: u64,
}

/// Something that a tenant pays for, or has paid.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BillingEvent {
    /// `overage`, `subscription` or `payment`.
    pub event_type: String,
    /// How much.
    pub amount_cents: u64,
    /// What it is for: of overage, the day and the number of messages.
    pub details: Map<String, Value>,
    /// `pending` until whoever bills has seen it.
    pub status: String,
    /// When it was first booked.
    pub created_at: DateTime<Utc>,
}

/// Cents for a hundred messages above the limit, where neither tenant nor operator says otherwise.
const OVERAGE_CENTS_PER_HUNDRED: u32 = 10;

/// What so many messages above the limit cost the tenant, rounded once for the day, and the rate for a hundred.
pub(crate) fn overage_amount(messages: u64, settings: &ClientSettings) -> (u64, u32) {
    let rate = settings.overage_cents_per_hundred.unwrap_or(OVERAGE_CENTS_PER_HUNDRED);
    let cents = messages.saturating_mul(u64::from(rate)).saturating_add(50) / 100;
    (cents, rate)
}

/// The billing event of a tenant's day: one id for it, so that booking again meets the one there is.
pub(crate) fn overage_event_id(tenant: &TenantId, day: NaiveDate) -> Uuid {
    const OVERAGES: Uuid = Uuid::from_u128(0x3c52_9a1e_71d4_4b6f_a0e8_55b3_0c97_41d6);
    Uuid::new_v5(&OVERAGES, format!("{tenant}/{day}").as_bytes())
}

/// Reads what [`ChatLog::write`](super::ChatLog::write) has booked.
#[async_trait]
pub trait UsageBook: Send + Sync + 'static {
    /// The hours of `day` in which anything was booked, in their order.
    async fn hours(&self, tenant: &TenantId, day: NaiveDate) -> Result<Vec<UsageHour>, ServiceError>;

    /// The days from `first` to `last` on which anything was booked, in their order.
    async fn days(&self, tenant: &TenantId, first: NaiveDate, last: NaiveDate) -> Result<Vec<UsageDay>, ServiceError>;

    /// The latest `limit` billing events, newest first.
    async fn billing(&self, tenant: &TenantId, limit: u32) -> Result<Vec<BillingEvent>, ServiceError>;
}
