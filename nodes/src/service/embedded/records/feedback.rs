//! What readers thought of answers.

use async_trait::async_trait;
use stepgraph::{RunId, TenantId};

use super::{
    SqliteRecords,
    stored::{database, read_time, read_word, word},
};
use crate::service::{Feedback, Feedbacks, Rating, ServiceError};

#[async_trait]
impl Feedbacks for SqliteRecords {
    async fn rate(
        &self,
        tenant: &TenantId,
        run: RunId,
        rating: Rating,
        comment: Option<&str>,
    ) -> Result<bool, ServiceError> {
        let rated = sqlx::query(
            "INSERT INTO feedback (client_id, trace_id, rating, comment, rated_at)
             SELECT client_id, trace_id, ?, ?, ? FROM chat_logs WHERE client_id = ? AND trace_id = ? AND role = 'user'
             ON CONFLICT (client_id, trace_id) DO UPDATE SET rating = excluded.rating, comment = excluded.comment,
               rated_at = excluded.rated_at",
        )
        .bind(word(&rating)?)
        .bind(comment)
        .bind(self.now_text())
        .bind(tenant.as_str())
        .bind(run.to_string())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(rated.rows_affected() == 1)
    }

    async fn rating(&self, tenant: &TenantId, run: RunId) -> Result<Option<Feedback>, ServiceError> {
        let found: Option<(String, Option<String>, String)> =
            sqlx::query_as("SELECT rating, comment, rated_at FROM feedback WHERE client_id = ? AND trace_id = ?")
                .bind(tenant.as_str())
                .bind(run.to_string())
                .fetch_optional(&self.pool)
                .await
                .map_err(database)?;
        found
            .map(|(rating, comment, rated_at)| {
                Ok(Feedback {
                    run,
                    rating: read_word("rating", &rating)?,
                    comment,
                    rated_at: read_time(&rated_at)?,
                })
            })
            .transpose()
    }
}
