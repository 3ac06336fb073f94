//! That tenants come near their limits.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::Value;
use stepgraph::TenantId;

use super::{
    PostgresRecords,
    stored::{corrupt, database, json, read_json, read_word, word},
};
use crate::service::{Alert, Alerts, Delivery, ServiceError};

#[async_trait]
impl Alerts for PostgresRecords {
    async fn raise(&self, tenant: &TenantId, alert: &Alert) -> Result<bool, ServiceError> {
        let mut tx = self.begin().await?;
        let kept = sqlx::query(
            "INSERT INTO stepgraph_usage_alerts (client_id, window_start, level, alert, delivery)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.as_str())
        .bind(alert.window_start.naive_utc())
        .bind(word(&alert.level)?)
        .bind(json(alert)?)
        .bind(word(&alert.first_delivery())?)
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        sqlx::query("DELETE FROM stepgraph_usage_alerts WHERE client_id = $1 AND window_start < $2")
            .bind(tenant.as_str())
            .bind(alert.keeps_since().naive_utc())
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        tx.commit().await.map_err(database)?;
        Ok(kept.rows_affected() == 1)
    }

    async fn claim(&self, limit: u32, hold: Duration) -> Result<Vec<(TenantId, Alert)>, ServiceError> {
        let now = self.now();
        let until = TimeDelta::from_std(hold)
            .ok()
            .and_then(|hold| now.checked_add_signed(hold));
        let rows: Vec<(String, Value)> = sqlx::query_as(
            "WITH waiting AS (
               SELECT client_id, window_start, level FROM stepgraph_usage_alerts
               WHERE delivery = 'waiting' AND (held_until IS NULL OR held_until < $2)
               ORDER BY window_start, client_id, level LIMIT $3 FOR UPDATE SKIP LOCKED)
             UPDATE stepgraph_usage_alerts a SET held_until = $1 FROM waiting w
             WHERE a.client_id = w.client_id AND a.window_start = w.window_start AND a.level = w.level
             RETURNING a.client_id, a.alert",
        )
        .bind(until.unwrap_or(now))
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let mut alerts = rows
            .into_iter()
            .map(|(tenant, alert)| {
                let tenant = TenantId::authenticated(tenant).map_err(|error| corrupt(error.to_string()))?;
                Ok((tenant, read_json("alert", alert)?))
            })
            .collect::<Result<Vec<(TenantId, Alert)>, ServiceError>>()?;
        // What an update returns has no order.
        alerts.sort_by(|(one, a), (other, b)| (a.window_start, one, a.level).cmp(&(b.window_start, other, b.level)));
        Ok(alerts)
    }

    async fn settle(&self, tenant: &TenantId, alert: &Alert, delivery: Delivery) -> Result<(), ServiceError> {
        sqlx::query(
            "UPDATE stepgraph_usage_alerts SET delivery = $1 WHERE client_id = $2 AND window_start = $3 AND level = $4",
        )
        .bind(word(&delivery)?)
        .bind(tenant.as_str())
        .bind(alert.window_start.naive_utc())
        .bind(word(&alert.level)?)
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    async fn alerts(&self, tenant: &TenantId, limit: u32) -> Result<Vec<(Alert, Delivery)>, ServiceError> {
        let rows: Vec<(Value, String)> = sqlx::query_as(
            "SELECT alert, delivery FROM stepgraph_usage_alerts WHERE client_id = $1
             ORDER BY window_start DESC, level LIMIT $2",
        )
        .bind(tenant.as_str())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.into_iter()
            .map(|(alert, delivery)| Ok((read_json("alert", alert)?, read_word("delivery", &delivery)?)))
            .collect()
    }
}
