//! What was booked, and what is billed of it.

use async_trait::async_trait;
use chrono::{NaiveDate, NaiveDateTime};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use stepgraph::TenantId;

use super::{
    PostgresRecords,
    stored::{count, database, mismatch, read_json, small, time},
};
use crate::service::{
    BillingEvent, ClientSettings, Cost, ServiceError, UsageBook, UsageDay, UsageHour,
    records::{overage_amount, overage_event_id},
};

/// Brings the day's billing event of the tenant up to what is booked. The rate is the tenant's as the shared table has
/// it, unless ours says otherwise.
pub(super) async fn bill_overage(
    tx: &mut Transaction<'_, Postgres>,
    tenant: &TenantId,
    day: NaiveDate,
    now: NaiveDateTime,
) -> Result<(), ServiceError> {
    let (messages, rate): (i64, Option<i64>) = sqlx::query_as(
        "SELECT coalesce(sum(overage_count), 0)::bigint,
           (SELECT coalesce((s.settings->>'overageCentsPerHundred')::bigint, (to_jsonb(c)->>'overage_rate_cents')::bigint)
            FROM clients c LEFT JOIN stepgraph_tenant_settings s ON s.client_id = c.id WHERE c.id = $1)
         FROM usage_hourly WHERE client_id = $1 AND date = $2",
    )
    .bind(tenant.as_str())
    .bind(day)
    .fetch_one(&mut **tx)
    .await
    .map_err(database)?;
    let settings = ClientSettings {
        overage_cents_per_hundred: rate.map(|rate| count("overage_rate_cents", rate)).transpose()?,
        ..ClientSettings::default()
    };
    let messages: u64 = count("overage_count", messages)?;
    let (cents, rate) = overage_amount(messages, &settings);
    sqlx::query(
        "INSERT INTO billing_events (id, client_id, event_type, amount_cents, details, status, created_at)
         VALUES ($1, $2, 'overage', $3, $4, 'pending', $5)
         ON CONFLICT (id) DO UPDATE SET amount_cents = excluded.amount_cents, details = excluded.details",
    )
    .bind(overage_event_id(tenant, day).to_string())
    .bind(tenant.as_str())
    .bind(small(cents))
    .bind(json!({ "date": day, "messages": messages, "centsPerHundred": rate }))
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(database)?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct HourRow {
    date: NaiveDate,
    hour: i32,
    request_count: i64,
    overage_count: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    cost_microcents: i64,
}

#[derive(sqlx::FromRow)]
struct DayRow {
    date: NaiveDateTime,
    total_messages: i32,
    assistant_messages: i32,
    total_tokens: i32,
    prompt_tokens: i32,
    completion_tokens: i32,
    cached_tokens: i32,
    estimated_cost_cents: i32,
    unique_sessions: i32,
    avg_latency_ms: Option<i32>,
    p95_latency_ms: Option<i32>,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    event_type: String,
    amount_cents: i32,
    details: Value,
    status: String,
    created_at: NaiveDateTime,
}

impl HourRow {
    fn hour(&self) -> Result<UsageHour, ServiceError> {
        Ok(UsageHour {
            date: self.date,
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
            date: self.date.date(),
            total_messages: count("total_messages", self.total_messages)?,
            assistant_messages: count("assistant_messages", self.assistant_messages)?,
            total_tokens: count("total_tokens", self.total_tokens)?,
            prompt_tokens: count("prompt_tokens", self.prompt_tokens)?,
            completion_tokens: count("completion_tokens", self.completion_tokens)?,
            cached_tokens: count("cached_tokens", self.cached_tokens)?,
            estimated_cost_cents: count("estimated_cost_cents", self.estimated_cost_cents)?,
            unique_sessions: count("unique_sessions", self.unique_sessions)?,
            avg_latency_ms: count("avg_latency_ms", self.avg_latency_ms.unwrap_or_default())?,
            p95_latency_ms: count("p95_latency_ms", self.p95_latency_ms.unwrap_or_default())?,
        })
    }
}

impl EventRow {
    fn event(self) -> Result<BillingEvent, ServiceError> {
        Ok(BillingEvent {
            event_type: self.event_type,
            amount_cents: count("amount_cents", self.amount_cents)?,
            details: read_json("details", self.details)?,
            status: self.status,
            created_at: time(self.created_at),
        })
    }
}

#[async_trait]
impl UsageBook for PostgresRecords {
    async fn hours(&self, tenant: &TenantId, day: NaiveDate) -> Result<Vec<UsageHour>, ServiceError> {
        let rows: Vec<HourRow> =
            sqlx::query_as("SELECT * FROM usage_hourly WHERE client_id = $1 AND date = $2 ORDER BY hour")
                .bind(tenant.as_str())
                .bind(day)
                .fetch_all(&self.pool)
                .await
                .map_err(database)?;
        rows.iter().map(HourRow::hour).collect()
    }

    async fn days(&self, tenant: &TenantId, first: NaiveDate, last: NaiveDate) -> Result<Vec<UsageDay>, ServiceError> {
        if !self.shape.usage_stats {
            return Err(mismatch(
                "`usage_stats` is not there: apply the migrations of the Express service and start again".to_owned(),
            ));
        }
        let rows: Vec<DayRow> = sqlx::query_as(
            "SELECT * FROM usage_stats WHERE client_id = $1 AND date >= $2::date AND date < $3::date + 1
             ORDER BY date, id",
        )
        .bind(tenant.as_str())
        .bind(first)
        .bind(last)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.iter().map(DayRow::day).collect()
    }

    async fn billing(&self, tenant: &TenantId, limit: u32) -> Result<Vec<BillingEvent>, ServiceError> {
        let rows: Vec<EventRow> = sqlx::query_as(
            "SELECT event_type, amount_cents, details, status, created_at FROM billing_events WHERE client_id = $1
             ORDER BY created_at DESC, id LIMIT $2",
        )
        .bind(tenant.as_str())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.into_iter().map(EventRow::event).collect()
    }
}
