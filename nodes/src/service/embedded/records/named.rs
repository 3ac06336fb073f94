//! Requests that their callers have named.

use async_trait::async_trait;
use stepgraph::{RunId, TenantId};
use uuid::Uuid;

use super::{
    SqliteRecords,
    stored::{self, corrupt, database, json, read_json, read_time},
};
use crate::service::{Claim, NamedRequest, NamedRequests, NamedState, RequestName, ServiceError, records::named_until};

type Row = (String, String, Option<String>, String, String);

impl SqliteRecords {
    fn named(&self, (run, state, answer, holder, taken_at): Row) -> Result<NamedRequest, ServiceError> {
        let answer = answer.map(|answer| read_json("answer", &answer)).transpose()?;
        let unreadable = || corrupt(format!("a named request of run `{run}` stands as `{state}`"));
        Ok(NamedRequest {
            run: Uuid::parse_str(&run).map(RunId::from).map_err(|_| unreadable())?,
            state: NamedState::of(&state, answer).ok_or_else(unreadable)?,
            taken_at: read_time(&taken_at)?,
            // The folder serves one process at a time: whoever had it before is gone.
            is_left: holder != self.holder.to_string(),
        })
    }
}

#[async_trait]
impl NamedRequests for SqliteRecords {
    async fn claim(&self, tenant: &TenantId, request: &RequestName, run: RunId) -> Result<Claim, ServiceError> {
        let now = (self.now)();
        let mut tx = self.write_lock().await?;
        sqlx::query("DELETE FROM named_requests WHERE client_id = ? AND expires_at <= ?")
            .bind(tenant.as_str())
            .bind(stored::time(now))
            .execute(&mut *tx)
            .await
            .map_err(database)?;
        let taken = sqlx::query(
            "INSERT INTO named_requests (client_id, session_id, name, trace_id, state, holder, taken_at, expires_at)
             VALUES (?, ?, ?, ?, 'claimed', ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.as_str())
        .bind(&request.session)
        .bind(&request.name)
        .bind(run.to_string())
        .bind(self.holder.to_string())
        .bind(stored::time(now))
        .bind(stored::time(named_until(now)))
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        let claim = if taken.rows_affected() == 1 {
            Claim::Ours
        } else {
            let row = sqlx::query_as(
                "SELECT trace_id, state, answer, holder, taken_at FROM named_requests
                 WHERE client_id = ? AND session_id = ? AND name = ?",
            )
            .bind(tenant.as_str())
            .bind(&request.session)
            .bind(&request.name)
            .fetch_one(&mut *tx)
            .await
            .map_err(database)?;
            Claim::Known(self.named(row)?)
        };
        tx.commit().await.map_err(database)?;
        Ok(claim)
    }

    async fn take_over(
        &self,
        tenant: &TenantId,
        request: &RequestName,
        found: &NamedRequest,
    ) -> Result<bool, ServiceError> {
        let (state, _) = found.state.parts();
        let taken = sqlx::query(
            "UPDATE named_requests SET holder = ?, taken_at = ?, state = CASE state WHEN 'failed' THEN 'begun' ELSE state END
             WHERE client_id = ? AND session_id = ? AND name = ? AND trace_id = ? AND taken_at = ? AND state = ?
               AND state <> 'answered'",
        )
        .bind(self.holder.to_string())
        .bind(self.now_text())
        .bind(tenant.as_str())
        .bind(&request.session)
        .bind(&request.name)
        .bind(found.run.to_string())
        .bind(stored::time(found.taken_at))
        .bind(state)
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(taken.rows_affected() == 1)
    }

    async fn note(
        &self,
        tenant: &TenantId,
        request: &RequestName,
        run: RunId,
        state: &NamedState,
    ) -> Result<(), ServiceError> {
        let (word, answer) = state.parts();
        sqlx::query(
            "UPDATE named_requests SET state = ?, answer = ?
             WHERE client_id = ? AND session_id = ? AND name = ? AND trace_id = ? AND state <> 'answered'",
        )
        .bind(word)
        .bind(answer.map(json).transpose()?)
        .bind(tenant.as_str())
        .bind(&request.session)
        .bind(&request.name)
        .bind(run.to_string())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    async fn forget_old(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let deleted = sqlx::query("DELETE FROM named_requests WHERE client_id = ? AND expires_at <= ?")
            .bind(tenant.as_str())
            .bind(self.now_text())
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(deleted.rows_affected())
    }

    async fn release(&self, tenant: &TenantId, request: &RequestName, run: RunId) -> Result<(), ServiceError> {
        sqlx::query(
            "DELETE FROM named_requests
             WHERE client_id = ? AND session_id = ? AND name = ? AND trace_id = ? AND state <> 'answered'",
        )
        .bind(tenant.as_str())
        .bind(&request.session)
        .bind(&request.name)
        .bind(run.to_string())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }
}
