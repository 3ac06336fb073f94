//! What was said and what it cost.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, Transaction};
use stepgraph::{RunId, TenantId};
use uuid::Uuid;

use super::{
    SqliteRecords,
    stored::{changed, corrupt, count, database, integer, json, read_json, read_time, time},
    usage,
};
use crate::service::{ChatLog, ChatTurn, Cost, ModelName, ServiceError, Usage};

/// One answer of so many may be slower than the 95th percentile.
const ANSWERS_PER_SLOW_ONE: i64 = 20;

/// What the schema has no column for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    cached_tokens: u64,
    degraded: bool,
    #[serde(default)]
    cost: Cost,
    #[serde(default)]
    overage: bool,
}

/// A turn in the forms that its rows need.
struct Booking<'a> {
    tenant: &'a str,
    run: String,
    turn: &'a ChatTurn,
    /// The day of the question, UTC, under which all of the turn is booked.
    date: String,
    asked_at: String,
    answered_at: String,
    total_tokens: i64,
    latency_ms: i64,
    now: String,
}

impl<'a> Booking<'a> {
    fn new(tenant: &'a TenantId, turn: &'a ChatTurn, now: String) -> Self {
        let usage = turn.usage;
        let answered_at = TimeDelta::from_std(turn.latency)
            .ok()
            .and_then(|latency| turn.asked_at.checked_add_signed(latency));
        Self {
            tenant: tenant.as_str(),
            run: turn.run.to_string(),
            turn,
            date: turn.asked_at.format("%Y-%m-%d").to_string(),
            asked_at: time(turn.asked_at),
            answered_at: time(answered_at.unwrap_or(turn.asked_at)),
            total_tokens: integer(usage.prompt_tokens.saturating_add(usage.completion_tokens)),
            latency_ms: i64::try_from(turn.latency.as_millis()).unwrap_or(i64::MAX),
            now,
        }
    }

    /// Writes the user's row; says no when the run had written before.
    async fn user_row(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<bool, ServiceError> {
        let written = sqlx::query(
            "INSERT INTO chat_logs (id, client_id, session_id, role, content, cached, metadata, trace_id, date, created_at)
             VALUES (?, ?, ?, 'user', ?, 0, '{}', ?, ?, ?) ON CONFLICT (client_id, trace_id, role) DO NOTHING",
        )
        .bind(Uuid::new_v4().to_string())
        .bind(self.tenant)
        .bind(&self.turn.session)
        .bind(&self.turn.question)
        .bind(&self.run)
        .bind(&self.date)
        .bind(&self.asked_at)
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(written.rows_affected() == 1)
    }

    async fn assistant_row(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<(), ServiceError> {
        let usage = self.turn.usage;
        let metadata = Metadata {
            cached_tokens: usage.cached_tokens,
            degraded: self.turn.degraded,
            cost: self.turn.cost,
            overage: self.turn.overage,
        };
        sqlx::query(
            "INSERT INTO chat_logs (id, client_id, session_id, role, content, sources, prompt_tokens, completion_tokens,
               total_tokens, cached, model, latency_ms, metadata, trace_id, date, created_at)
             VALUES (?, ?, ?, 'assistant', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(Uuid::new_v4().to_string())
        .bind(self.tenant)
        .bind(&self.turn.session)
        .bind(&self.turn.answer)
        .bind(json(&self.turn.sources)?)
        .bind(integer(usage.prompt_tokens))
        .bind(integer(usage.completion_tokens))
        .bind(self.total_tokens)
        .bind(usage.cached_tokens > 0)
        .bind(self.turn.model.as_str())
        .bind(self.latency_ms)
        .bind(json(&metadata)?)
        .bind(&self.run)
        .bind(&self.date)
        .bind(&self.answered_at)
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// Whether this turn is the session's first of the day. Read after the rows are written.
    async fn opens_session(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<bool, ServiceError> {
        sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT 1 FROM chat_logs WHERE client_id = ? AND session_id = ? AND role = 'user'
               AND date = ? AND trace_id <> ?)",
        )
        .bind(self.tenant)
        .bind(&self.turn.session)
        .bind(&self.date)
        .bind(&self.run)
        .fetch_one(&mut **tx)
        .await
        .map_err(database)
    }

    async fn book_day(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<(), ServiceError> {
        let usage = self.turn.usage;
        let answers: i64 = sqlx::query_scalar(
            "INSERT INTO usage_stats (client_id, date, total_messages, user_messages, assistant_messages, total_tokens,
               prompt_tokens, completion_tokens, cached_tokens, unique_sessions, latency_ms_total, avg_latency_ms,
               p95_latency_ms, updated_at, cost_microcents, estimated_cost_cents)
             VALUES (?1, ?2, 2, 1, 1, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?8, ?9, ?10, (?10 + 500000) / 1000000)
             ON CONFLICT (client_id, date) DO UPDATE SET
               total_messages = total_messages + 2, user_messages = user_messages + 1,
               assistant_messages = assistant_messages + 1, total_tokens = total_tokens + excluded.total_tokens,
               prompt_tokens = prompt_tokens + excluded.prompt_tokens,
               completion_tokens = completion_tokens + excluded.completion_tokens,
               cached_tokens = cached_tokens + excluded.cached_tokens,
               unique_sessions = unique_sessions + excluded.unique_sessions,
               latency_ms_total = latency_ms_total + excluded.latency_ms_total,
               avg_latency_ms = (latency_ms_total + excluded.latency_ms_total) / (assistant_messages + 1),
               cost_microcents = cost_microcents + excluded.cost_microcents,
               estimated_cost_cents = (cost_microcents + excluded.cost_microcents + 500000) / 1000000,
               updated_at = excluded.updated_at
             RETURNING assistant_messages",
        )
        .bind(self.tenant)
        .bind(&self.date)
        .bind(self.total_tokens)
        .bind(integer(usage.prompt_tokens))
        .bind(integer(usage.completion_tokens))
        .bind(integer(usage.cached_tokens))
        .bind(self.opens_session(tx).await?)
        .bind(self.latency_ms)
        .bind(&self.now)
        .bind(integer(self.turn.cost.microcents()))
        .fetch_one(&mut **tx)
        .await
        .map_err(database)?;
        self.book_latency_rank(tx, answers).await
    }

    /// The latency that 95 of 100 answers of the day stay within: found from the top of an index, so that a busy day
    /// costs a short walk.
    async fn book_latency_rank(&self, tx: &mut Transaction<'_, Sqlite>, answers: i64) -> Result<(), ServiceError> {
        sqlx::query(
            "UPDATE usage_stats SET p95_latency_ms = coalesce((
               SELECT latency_ms FROM chat_logs
               WHERE client_id = ?1 AND role = 'assistant' AND date = ?2
               ORDER BY latency_ms DESC LIMIT 1 OFFSET ?3), p95_latency_ms)
             WHERE client_id = ?1 AND date = ?2",
        )
        .bind(self.tenant)
        .bind(&self.date)
        .bind(answers / ANSWERS_PER_SLOW_ONE)
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }

    async fn book_hour(&self, tx: &mut Transaction<'_, Sqlite>) -> Result<(), ServiceError> {
        let usage = self.turn.usage;
        sqlx::query(
            "INSERT INTO usage_hourly (client_id, date, hour, request_count, total_tokens, overage_count, prompt_tokens,
               completion_tokens, cached_tokens, cost_microcents) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (client_id, date, hour) DO UPDATE SET request_count = request_count + 1,
               total_tokens = total_tokens + excluded.total_tokens,
               overage_count = overage_count + excluded.overage_count,
               prompt_tokens = prompt_tokens + excluded.prompt_tokens,
               completion_tokens = completion_tokens + excluded.completion_tokens,
               cached_tokens = cached_tokens + excluded.cached_tokens,
               cost_microcents = cost_microcents + excluded.cost_microcents",
        )
        .bind(self.tenant)
        .bind(&self.date)
        .bind(i64::from(self.turn.asked_at.hour()))
        .bind(self.total_tokens)
        .bind(i64::from(self.turn.overage))
        .bind(integer(usage.prompt_tokens))
        .bind(integer(usage.completion_tokens))
        .bind(integer(usage.cached_tokens))
        .bind(integer(self.turn.cost.microcents()))
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
    sources: String,
    prompt_tokens: i64,
    completion_tokens: i64,
    metadata: String,
    model: String,
    latency_ms: i64,
    asked_at: String,
}

impl Row {
    fn turn(self, session: &str) -> Result<ChatTurn, ServiceError> {
        let run = Uuid::parse_str(&self.trace_id)
            .map_err(|error| corrupt(format!("`{}` is not a run: {error}", self.trace_id)))?;
        let metadata: Metadata = read_json("metadata", &self.metadata)?;
        Ok(ChatTurn {
            run: RunId::from(run),
            session: session.to_owned(),
            question: self.question,
            answer: self.answer,
            sources: read_json("sources", &self.sources)?,
            usage: Usage {
                prompt_tokens: count("prompt_tokens", self.prompt_tokens)?,
                completion_tokens: count("completion_tokens", self.completion_tokens)?,
                cached_tokens: metadata.cached_tokens,
                ..Usage::default()
            },
            model: ModelName::new(self.model),
            latency: Duration::from_millis(count("latency_ms", self.latency_ms)?),
            degraded: metadata.degraded,
            cost: metadata.cost,
            overage: metadata.overage,
            asked_at: read_time(&self.asked_at)?,
        })
    }
}

#[async_trait]
impl ChatLog for SqliteRecords {
    async fn write(&self, tenant: &TenantId, turn: &ChatTurn) -> Result<(), ServiceError> {
        let booking = Booking::new(tenant, turn, self.now_text());
        let mut tx = self.write_lock().await?;
        if booking.user_row(&mut tx).await? {
            booking.assistant_row(&mut tx).await?;
            booking.book_day(&mut tx).await?;
            booking.book_hour(&mut tx).await?;
            if turn.overage {
                usage::bill_overage(&mut tx, tenant, turn.asked_at.date_naive(), &booking.now).await?;
            }
        }
        tx.commit().await.map_err(database)
    }

    async fn session(&self, tenant: &TenantId, session: &str, limit: u32) -> Result<Vec<ChatTurn>, ServiceError> {
        let latest_first = sqlx::query_as::<_, Row>(
            "SELECT u.trace_id, u.content AS question, a.content AS answer, a.sources, a.prompt_tokens, a.completion_tokens,
               a.metadata, a.model, a.latency_ms, u.created_at AS asked_at
             FROM chat_logs u
             JOIN chat_logs a ON a.client_id = u.client_id AND a.trace_id = u.trace_id AND a.role = 'assistant'
             WHERE u.client_id = ? AND u.session_id = ? AND u.role = 'user'
             ORDER BY u.created_at DESC, u.rowid DESC LIMIT ?",
        )
        .bind(tenant.as_str())
        .bind(session)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        latest_first.into_iter().rev().map(|row| row.turn(session)).collect()
    }

    async fn delete_before(&self, tenant: &TenantId, before: DateTime<Utc>, limit: u32) -> Result<u64, ServiceError> {
        let mut tx = self.write_lock().await?;
        let runs: Vec<String> = sqlx::query_scalar(
            "SELECT trace_id FROM chat_logs WHERE client_id = ? AND role = 'user' AND created_at < ?
             ORDER BY created_at LIMIT ?",
        )
        .bind(tenant.as_str())
        .bind(time(before))
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(database)?;
        let runs_listed = json(&runs)?;
        for delete in [
            "DELETE FROM feedback WHERE client_id = ? AND trace_id IN (SELECT value FROM json_each(?))",
            "DELETE FROM chat_logs WHERE client_id = ? AND trace_id IN (SELECT value FROM json_each(?))",
        ] {
            sqlx::query(delete)
                .bind(tenant.as_str())
                .bind(&runs_listed)
                .execute(&mut *tx)
                .await
                .map_err(database)?;
        }
        tx.commit().await.map_err(database)?;
        Ok(changed(runs.len()))
    }
}
