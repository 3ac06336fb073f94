//! That tenants come near their limits.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use stepgraph::TenantId;

use super::{
    SqliteRecords,
    stored::{self, corrupt, database, json, read_json, read_word, word},
};
use crate::service::{Alert, Alerts, Delivery, ServiceError};

#[async_trait]
impl Alerts for SqliteRecords {
    async fn raise(&self, tenant: &TenantId, alert: &Alert) -> Result<bool, ServiceError> {
        let mut tx = self.write_lock().await?;
        let kept = sqlx::query(
            "INSERT INTO usage_alerts (client_id, window_start, level, alert, delivery) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(tenant.as_str())
        .bind(stored::time(alert.window_start))
        .bind(word(&alert.level)?)
        .bind(json(alert)?)
        .bind(word(&alert.first_delivery())?)
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        sqlx::query("DELETE FROM usage_alerts WHERE client_id = ? AND window_start < ?")
            .bind(tenant.as_str())
            .bind(stored::time(alert.keeps_since()))
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        tx.commit().await.map_err(database)?;
        Ok(kept.rows_affected() == 1)
    }

    async fn claim(&self, limit: u32, hold: Duration) -> Result<Vec<(TenantId, Alert)>, ServiceError> {
        let now = (self.now)();
        let until = TimeDelta::from_std(hold)
            .ok()
            .and_then(|hold| now.checked_add_signed(hold));
        let rows: Vec<(String, String)> = sqlx::query_as(
            "UPDATE usage_alerts SET held_until = ?1 WHERE (client_id, window_start, level) IN (
               SELECT client_id, window_start, level FROM usage_alerts
               WHERE delivery = 'waiting' AND (held_until IS NULL OR held_until < ?2)
               ORDER BY window_start, client_id, level LIMIT ?3)
             RETURNING client_id, alert",
        )
        .bind(stored::time(until.unwrap_or(now)))
        .bind(stored::time(now))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let mut alerts = rows
            .into_iter()
            .map(|(tenant, alert)| {
                let tenant = TenantId::authenticated(tenant).map_err(|error| corrupt(error.to_string()))?;
                Ok((tenant, read_json("alert", &alert)?))
            })
            .collect::<Result<Vec<(TenantId, Alert)>, ServiceError>>()?;
        // What an update returns has no order.
        alerts.sort_by(|(one, a), (other, b)| (a.window_start, one, a.level).cmp(&(b.window_start, other, b.level)));
        Ok(alerts)
    }

    async fn settle(&self, tenant: &TenantId, alert: &Alert, delivery: Delivery) -> Result<(), ServiceError> {
        sqlx::query("UPDATE usage_alerts SET delivery = ? WHERE client_id = ? AND window_start = ? AND level = ?")
            .bind(word(&delivery)?)
            .bind(tenant.as_str())
            .bind(stored::time(alert.window_start))
            .bind(word(&alert.level)?)
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(())
    }

    async fn alerts(&self, tenant: &TenantId, limit: u32) -> Result<Vec<(Alert, Delivery)>, ServiceError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT alert, delivery FROM usage_alerts WHERE client_id = ? ORDER BY window_start DESC, level LIMIT ?",
        )
        .bind(tenant.as_str())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.into_iter()
            .map(|(alert, delivery)| Ok((read_json("alert", &alert)?, read_word("delivery", &delivery)?)))
            .collect()
    }
}
