//! What was said, what readers thought of it, and its booking.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Timelike as _, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use stepgraph::{RunId, TenantId};
use uuid::Uuid;

use super::{
    PostgresRecords, lock,
    stored::{corrupt, count, database, integer, json, mismatch, read_json, read_word, small, text, time, word},
    usage,
};
use crate::service::{ChatLog, ChatTurn, Cost, Feedback, Feedbacks, ModelName, Rating, ServiceError, Usage};

/// One answer of so many may be slower than the 95th percentile.
const ANSWERS_PER_SLOW_ONE: i64 = 20;

/// What the schema has no column for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    cached_tokens: u64,
    degraded: bool,
    cost: Cost,
    overage: bool,
}

/// A turn in the forms that its rows need.
struct Booking<'a> {
    tenant: &'a TenantId,
    run: String,
    session: String,
    turn: &'a ChatTurn,
    day: NaiveDate,
    latency_ms: i64,
    now: NaiveDateTime,
}

impl<'a> Booking<'a> {
    fn new(tenant: &'a TenantId, turn: &'a ChatTurn, now: NaiveDateTime) -> Self {
        Self {
            tenant,
            run: turn.run.to_string(),
            session: text(&turn.session),
            turn,
            day: turn.asked_at.date_naive(),
            latency_ms: i64::try_from(turn.latency.as_millis()).unwrap_or(i64::MAX),
            now,
        }
    }

    fn total_tokens(&self) -> u64 {
        let usage = self.turn.usage;
        usage.prompt_tokens.saturating_add(usage.completion_tokens)
    }

    /// Notes the run; says no when it had been written before.
    async fn note(&self, tx: &mut Transaction<'_, Postgres>) -> Result<bool, ServiceError> {
        let noted = sqlx::query(
            "INSERT INTO stepgraph_turns (client_id, trace_id, session_id, date, latency_ms, asked_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (client_id, trace_id) DO NOTHING",
        )
        .bind(self.tenant.as_str())
        .bind(&self.run)
        .bind(&self.session)
        .bind(self.day)
        .bind(self.latency_ms)
        .bind(self.turn.asked_at.naive_utc())
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(noted.rows_affected() == 1)
    }

    async fn write_rows(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), ServiceError> {
        let turn = self.turn;
        let answered_at = TimeDelta::from_std(turn.latency)
            .ok()
            .and_then(|latency| turn.asked_at.checked_add_signed(latency))
            .unwrap_or(turn.asked_at);
        let metadata = Metadata {
            cached_tokens: turn.usage.cached_tokens,
            degraded: turn.degraded,
            cost: turn.cost,
            overage: turn.overage,
        };
        sqlx::query(
            "INSERT INTO chat_logs (id, client_id, session_id, role, content, sources, prompt_tokens, completion_tokens,
               total_tokens, cached, model, latency_ms, metadata, trace_id, created_at)
             VALUES ($1, $3, $4, 'user', $5, NULL, NULL, NULL, NULL, false, NULL, NULL, '{}', $14, $15),
                    ($2, $3, $4, 'assistant', $6, $7, $8, $9, $10, $11, $12, $13, $16, $14, $17)",
        )
        .bind(Uuid::new_v4().to_string())
        .bind(Uuid::new_v4().to_string())
        .bind(self.tenant.as_str())
        .bind(&self.session)
        .bind(text(&turn.question))
        .bind(text(&turn.answer))
        .bind(json(&turn.sources)?)
        .bind(small(turn.usage.prompt_tokens))
        .bind(small(turn.usage.completion_tokens))
        .bind(small(self.total_tokens()))
        .bind(turn.usage.cached_tokens > 0)
        .bind(turn.model.as_str())
        .bind(i32::try_from(self.latency_ms).unwrap_or(i32::MAX))
        .bind(&self.run)
        .bind(turn.asked_at.naive_utc())
        .bind(json(&metadata)?)
        .bind(answered_at.naive_utc())
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }

    async fn book_hour(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), ServiceError> {
        let usage = self.turn.usage;
        sqlx::query(
            "INSERT INTO usage_hourly AS h (client_id, date, hour, request_count, overage_count, total_tokens,
               prompt_tokens, completion_tokens, cached_tokens, cost_microcents, latency_ms_total)
             VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (client_id, date, hour) DO UPDATE SET request_count = h.request_count + 1,
               overage_count = h.overage_count + excluded.overage_count,
               total_tokens = h.total_tokens + excluded.total_tokens,
               prompt_tokens = h.prompt_tokens + excluded.prompt_tokens,
               completion_tokens = h.completion_tokens + excluded.completion_tokens,
               cached_tokens = h.cached_tokens + excluded.cached_tokens,
               cost_microcents = h.cost_microcents + excluded.cost_microcents,
               latency_ms_total = h.latency_ms_total + excluded.latency_ms_total",
        )
        .bind(self.tenant.as_str())
        .bind(self.day)
        .bind(i32::try_from(self.turn.asked_at.hour()).unwrap_or_default())
        .bind(i64::from(self.turn.overage))
        .bind(integer(self.total_tokens()))
        .bind(integer(usage.prompt_tokens))
        .bind(integer(usage.completion_tokens))
        .bind(integer(usage.cached_tokens))
        .bind(integer(self.turn.cost.microcents()))
        .bind(self.latency_ms)
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// The row of the day, made where there is none: the table has no unique key, the lock stands in for it.
    async fn row_of_day(&self, tx: &mut Transaction<'_, Postgres>) -> Result<String, ServiceError> {
        let known: Option<String> = sqlx::query_scalar(
            "SELECT id FROM usage_stats WHERE client_id = $1 AND date >= $2::date AND date < $2::date + 1
             ORDER BY date, id LIMIT 1 FOR UPDATE",
        )
        .bind(self.tenant.as_str())
        .bind(self.day)
        .fetch_optional(&mut **tx)
        .await
        .map_err(database)?;
        if let Some(id) = known {
            return Ok(id);
        }
        let id = Uuid::new_v4().to_string();
        sqlx::query("INSERT INTO usage_stats (id, client_id, date, updated_at) VALUES ($1, $2, $3::date, $4)")
            .bind(&id)
            .bind(self.tenant.as_str())
            .bind(self.day)
            .bind(self.now)
            .execute(&mut **tx)
            .await
            .map_err(database)?;
        Ok(id)
    }

    /// Sums that the hours hold exactly are taken from there; what the shared row has of others stays in it.
    async fn book_day(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), ServiceError> {
        let usage = self.turn.usage;
        let id = self.row_of_day(tx).await?;
        sqlx::query(
            "WITH hours AS (
               SELECT sum(cost_microcents) AS cost, sum(latency_ms_total) / sum(request_count) AS latency,
                 sum(request_count)::bigint AS answers
               FROM usage_hourly WHERE client_id = $1 AND date = $2),
             slow AS (
               SELECT latency_ms FROM stepgraph_turns WHERE client_id = $1 AND date = $2
               ORDER BY latency_ms DESC LIMIT 1 OFFSET (SELECT answers / $10 FROM hours))
             UPDATE usage_stats SET
               total_messages = least(total_messages::bigint + 2, 2147483647),
               user_messages = least(user_messages::bigint + 1, 2147483647),
               assistant_messages = least(assistant_messages::bigint + 1, 2147483647),
               total_tokens = least(total_tokens::bigint + $4, 2147483647),
               prompt_tokens = least(prompt_tokens::bigint + $5, 2147483647),
               completion_tokens = least(completion_tokens::bigint + $6, 2147483647),
               cached_tokens = least(cached_tokens::bigint + $7, 2147483647),
               estimated_cost_cents = least((SELECT floor((cost + 500000) / 1000000) FROM hours), 2147483647),
               unique_sessions = unique_sessions + CASE WHEN EXISTS (SELECT 1 FROM stepgraph_turns
                 WHERE client_id = $1 AND session_id = $8 AND date = $2 AND trace_id <> $9) THEN 0 ELSE 1 END,
               avg_latency_ms = least((SELECT floor(latency) FROM hours), 2147483647),
               p95_latency_ms = least(coalesce((SELECT latency_ms FROM slow), p95_latency_ms), 2147483647),
               updated_at = $11
             WHERE client_id = $1 AND id = $3",
        )
        .bind(self.tenant.as_str())
        .bind(self.day)
        .bind(id)
        .bind(integer(self.total_tokens()))
        .bind(integer(usage.prompt_tokens))
        .bind(integer(usage.completion_tokens))
        .bind(integer(usage.cached_tokens))
        .bind(&self.session)
        .bind(&self.run)
        .bind(ANSWERS_PER_SLOW_ONE)
        .bind(self.now)
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    trace_id: String,
    question: String,
    answer: String,
    sources: Option<Value>,
    prompt_tokens: Option<i32>,
    completion_tokens: Option<i32>,
    metadata: Value,
    model: Option<String>,
    latency_ms: i64,
    asked_at: NaiveDateTime,
}

impl Row {
    fn turn(self, session: &str) -> Result<ChatTurn, ServiceError> {
        let run = Uuid::parse_str(&self.trace_id)
            .map_err(|error| corrupt(format!("`{}` is not a run: {error}", self.trace_id)))?;
        let metadata: Metadata = read_json("metadata", self.metadata)?;
        Ok(ChatTurn {
            run: RunId::from(run),
            session: session.to_owned(),
            question: self.question,
            answer: self.answer,
            sources: self
                .sources
                .map(|sources| read_json("sources", sources))
                .transpose()?
                .unwrap_or_default(),
            usage: Usage {
                prompt_tokens: count("prompt_tokens", self.prompt_tokens.unwrap_or_default())?,
                completion_tokens: count("completion_tokens", self.completion_tokens.unwrap_or_default())?,
                cached_tokens: metadata.cached_tokens,
                ..Usage::default()
            },
            cost: metadata.cost,
            overage: metadata.overage,
            model: ModelName::new(self.model.unwrap_or_default()),
            latency: Duration::from_millis(count("latency_ms", self.latency_ms)?),
            degraded: metadata.degraded,
            asked_at: time(self.asked_at),
        })
    }
}

#[async_trait]
impl ChatLog for PostgresRecords {
    async fn write(&self, tenant: &TenantId, turn: &ChatTurn) -> Result<(), ServiceError> {
        let booking = Booking::new(tenant, turn, self.now());
        let mut tx = self.begin().await?;
        if booking.note(&mut tx).await? {
            if self.shape.chat_logs {
                booking.write_rows(&mut tx).await?;
            }
            lock(&mut tx, &format!("stepgraph usage {tenant}")).await?;
            booking.book_hour(&mut tx).await?;
            if self.shape.usage_stats {
                booking.book_day(&mut tx).await?;
            }
            if turn.overage {
                usage::bill_overage(&mut tx, tenant, booking.day, booking.now).await?;
            }
        }
        tx.commit().await.map_err(database)
    }

    async fn session(&self, tenant: &TenantId, session: &str, limit: u32) -> Result<Vec<ChatTurn>, ServiceError> {
        if !self.shape.chat_logs {
            return Err(mismatch(
                "`chat_logs` is not there: apply the migrations of the Express service and start again".to_owned(),
            ));
        }
        let latest_first = sqlx::query_as::<_, Row>(
            "SELECT t.trace_id, u.content AS question, a.content AS answer, a.sources, a.prompt_tokens,
               a.completion_tokens, a.metadata, a.model, t.latency_ms, t.asked_at
             FROM stepgraph_turns t
             JOIN chat_logs u ON u.client_id = t.client_id AND u.session_id = t.session_id AND u.trace_id = t.trace_id
               AND u.role = 'user'
             JOIN chat_logs a ON a.client_id = t.client_id AND a.session_id = t.session_id AND a.trace_id = t.trace_id
               AND a.role = 'assistant'
             WHERE t.client_id = $1 AND t.session_id = $2 ORDER BY t.asked_at DESC, t.trace_id DESC LIMIT $3",
        )
        .bind(tenant.as_str())
        .bind(text(session))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        latest_first.into_iter().rev().map(|row| row.turn(session)).collect()
    }

    /// Rows that another program has written are as old as theirs say, and go as well.
    async fn delete_before(&self, tenant: &TenantId, before: DateTime<Utc>, limit: u32) -> Result<u64, ServiceError> {
        let mut tx = self.begin().await?;
        let runs: Vec<String> = sqlx::query_scalar(
            "DELETE FROM stepgraph_turns WHERE client_id = $1 AND trace_id IN (SELECT trace_id FROM stepgraph_turns
               WHERE client_id = $1 AND asked_at < $2 ORDER BY asked_at LIMIT $3) RETURNING trace_id",
        )
        .bind(tenant.as_str())
        .bind(before.naive_utc())
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(database)?;
        sqlx::query("DELETE FROM stepgraph_feedback WHERE client_id = $1 AND trace_id = ANY ($2)")
            .bind(tenant.as_str())
            .bind(&runs)
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        let mut deleted = u64::try_from(runs.len()).unwrap_or(u64::MAX);
        if self.shape.chat_logs {
            sqlx::query("DELETE FROM chat_logs WHERE client_id = $1 AND trace_id = ANY ($2)")
                .bind(tenant.as_str())
                .bind(&runs)
                .execute(&mut *tx)
                .await
                .map_err(database)?;
            let foreign = sqlx::query(
                "DELETE FROM chat_logs WHERE client_id = $1 AND id IN (SELECT l.id FROM chat_logs l
                   WHERE l.client_id = $1 AND l.created_at < $2 AND NOT EXISTS (SELECT 1 FROM stepgraph_turns t
                     WHERE t.client_id = l.client_id AND t.trace_id = l.trace_id) LIMIT $3)",
            )
            .bind(tenant.as_str())
            .bind(before.naive_utc())
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await
            .map_err(database)?;
            deleted = deleted.saturating_add(foreign.rows_affected());
        }
        tx.commit().await.map_err(database)?;
        Ok(deleted)
    }
}

#[async_trait]
impl Feedbacks for PostgresRecords {
    async fn rate(
        &self,
        tenant: &TenantId,
        run: RunId,
        rating: Rating,
        comment: Option<&str>,
    ) -> Result<bool, ServiceError> {
        let rated = sqlx::query(
            "INSERT INTO stepgraph_feedback (client_id, trace_id, rating, comment, rated_at)
             SELECT client_id, trace_id, $3, $4, $5 FROM stepgraph_turns WHERE client_id = $1 AND trace_id = $2
             ON CONFLICT (client_id, trace_id) DO UPDATE SET rating = excluded.rating, comment = excluded.comment,
               rated_at = excluded.rated_at",
        )
        .bind(tenant.as_str())
        .bind(run.to_string())
        .bind(word(&rating)?)
        .bind(comment.map(text))
        .bind(self.now())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(rated.rows_affected() == 1)
    }

    async fn rating(&self, tenant: &TenantId, run: RunId) -> Result<Option<Feedback>, ServiceError> {
        let found: Option<(String, Option<String>, NaiveDateTime)> = sqlx::query_as(
            "SELECT rating, comment, rated_at FROM stepgraph_feedback WHERE client_id = $1 AND trace_id = $2",
        )
        .bind(tenant.as_str())
        .bind(run.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?;
        let read = |(rating, comment, rated_at): (String, Option<String>, NaiveDateTime)| {
            Ok(Feedback {
                run,
                rating: read_word("rating", &rating)?,
                comment,
                rated_at: time(rated_at),
            })
        };
        found.map(read).transpose()
    }
}
