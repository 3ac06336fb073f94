//! What was booked, and what is billed of it.

use async_trait::async_trait;
use chrono::NaiveDate;
use serde_json::json;
use sqlx::{Sqlite, Transaction};
use stepgraph::TenantId;

use super::{
    SqliteRecords,
    stored::{self, corrupt, count, database, integer, read_json, read_time},
};
use crate::service::{
    BillingEvent, Cost, ServiceError, UsageBook, UsageDay, UsageHour,
    records::{overage_amount, overage_event_id},
};

/// Brings the day's billing event of the tenant up to what is booked.
pub(super) async fn bill_overage(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: &TenantId,
    day: NaiveDate,
    now: &str,
) -> Result<(), ServiceError> {
    let date = day.to_string();
    let messages: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(overage_count), 0) FROM usage_hourly WHERE client_id = ? AND date = ?")
            .bind(tenant.as_str())
            .bind(&date)
            .fetch_one(&mut **tx)
            .await
            .map_err(database)?;
    let settings: Option<String> = sqlx::query_scalar("SELECT settings FROM tenant_settings WHERE client_id = ?")
        .bind(tenant.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(database)?;
    let settings = settings.map_or_else(
        || Ok(crate::service::ClientSettings::default()),
        |text| read_json("settings", &text),
    )?;
    let messages: u64 = count("overage_count", messages)?;
    let (cents, rate) = overage_amount(messages, &settings);
    sqlx::query(
        "INSERT INTO billing_events (id, client_id, event_type, amount_cents, details, status, created_at)
         VALUES (?, ?, 'overage', ?, ?, 'pending', ?)
         ON CONFLICT (id) DO UPDATE SET amount_cents = excluded.amount_cents, details = excluded.details",
    )
    .bind(overage_event_id(tenant, day).to_string())
    .bind(tenant.as_str())
    .bind(integer(cents))
    .bind(stored::json(
        &json!({ "date": date, "messages": messages, "centsPerHundred": rate }),
    )?)
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(database)?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct HourRow {
    date: String,
    hour: i64,
    request_count: i64,
    overage_count: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    cost_microcents: i64,
}

#[derive(sqlx::FromRow)]
struct DayRow {
    date: String,
    total_messages: i64,
    assistant_messages: i64,
    total_tokens: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    estimated_cost_cents: i64,
    unique_sessions: i64,
    avg_latency_ms: i64,
    p95_latency_ms: i64,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    event_type: String,
    amount_cents: i64,
    details: String,
    status: String,
    created_at: String,
}

fn read_date(text: &str) -> Result<NaiveDate, ServiceError> {
    text.parse()
        .map_err(|error| corrupt(format!("`{text}` is not a day: {error}")))
}

impl HourRow {
    fn hour(&self) -> Result<UsageHour, ServiceError> {
        Ok(UsageHour {
            date: read_date(&self.date)?,
            hour: count("hour", self.hour)?,
            request_count: count("request_count", self.request_count)?,
            overage_count: count("overage_count", self.overage_count)?,
            prompt_tokens: count("prompt_tokens", self.prompt_tokens)?,
            completion_tokens: count("completion_tokens", self.completion_tokens)?,
            cached_tokens: count("cached_tokens", self.cached_tokens)?,
            cost: Cost::from_microcents(count("cost_microcents", self.cost_microcents)?),
        })
    }
}

impl DayRow {
    fn day(&self) -> Result<UsageDay, ServiceError> {
        Ok(UsageDay {
            date: read_date(&self.date)?,
            total_messages: count("total_messages", self.total_messages)?,
            assistant_messages: count("assistant_messages", self.assistant_messages)?,
            total_tokens: count("total_tokens", self.total_tokens)?,
            prompt_tokens: count("prompt_tokens", self.prompt_tokens)?,
            completion_tokens: count("completion_tokens", self.completion_tokens)?,
            cached_tokens: count("cached_tokens", self.cached_tokens)?,
            estimated_cost_cents: count("estimated_cost_cents", self.estimated_cost_cents)?,
            unique_sessions: count("unique_sessions", self.unique_sessions)?,
            avg_latency_ms: count("avg_latency_ms", self.avg_latency_ms)?,
            p95_latency_ms: count("p95_latency_ms", self.p95_latency_ms)?,
        })
    }
}

impl EventRow {
    fn event(self) -> Result<BillingEvent, ServiceError> {
        Ok(BillingEvent {
            event_type: self.event_type,
            amount_cents: count("amount_cents", self.amount_cents)?,
            details: read_json("details", &self.details)?,
            status: self.status,
            created_at: read_time(&self.created_at)?,
        })
    }
}

#[async_trait]
impl UsageBook for SqliteRecords {
    async fn hours(&self, tenant: &TenantId, day: NaiveDate) -> Result<Vec<UsageHour>, ServiceError> {
        let rows: Vec<HourRow> =
            sqlx::query_as("SELECT * FROM usage_hourly WHERE client_id = ? AND date = ? ORDER BY hour")
                .bind(tenant.as_str())
                .bind(day.to_string())
                .fetch_all(&self.pool)
                .await
                .map_err(database)?;
        rows.iter().map(HourRow::hour).collect()
    }

    async fn days(&self, tenant: &TenantId, first: NaiveDate, last: NaiveDate) -> Result<Vec<UsageDay>, ServiceError> {
        let rows: Vec<DayRow> =
            sqlx::query_as("SELECT * FROM usage_stats WHERE client_id = ? AND date BETWEEN ? AND ? ORDER BY date")
                .bind(tenant.as_str())
                .bind(first.to_string())
                .bind(last.to_string())
                .fetch_all(&self.pool)
                .await
                .map_err(database)?;
        rows.iter().map(DayRow::day).collect()
    }

    async fn billing(&self, tenant: &TenantId, limit: u32) -> Result<Vec<BillingEvent>, ServiceError> {
        let rows: Vec<EventRow> = sqlx::query_as(
            "SELECT event_type, amount_cents, details, status, created_at FROM billing_events WHERE client_id = ?
             ORDER BY created_at DESC, id LIMIT ?",
        )
        .bind(tenant.as_str())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.into_iter().map(EventRow::event).collect()
    }
}
