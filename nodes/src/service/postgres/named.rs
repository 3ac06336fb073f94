//! Requests that their callers have named.

use async_trait::async_trait;
use chrono::NaiveDateTime;
use serde_json::Value;
use stepgraph::{RunId, TenantId};
use uuid::Uuid;

use super::{
    PostgresRecords,
    stored::{corrupt, database, json, text, time},
};
use crate::service::{Claim, NamedRequest, NamedRequests, NamedState, RequestName, ServiceError, records::named_until};

/// How often a claim is tried again because the row went away between two statements.
const CLAIM_TRIES: usize = 3;

type Row = (String, String, Option<Value>, NaiveDateTime);

fn named((run, state, answer, taken_at): Row) -> Result<NamedRequest, ServiceError> {
    let unreadable = || corrupt(format!("a named request of run `{run}` stands as `{state}`"));
    Ok(NamedRequest {
        run: Uuid::parse_str(&run).map(RunId::from).map_err(|_| unreadable())?,
        state: NamedState::of(&state, answer).ok_or_else(unreadable)?,
        taken_at: time(taken_at),
        // Other processes share the database: one that is gone is told by the time alone.
        is_left: false,
    })
}

#[async_trait]
impl NamedRequests for PostgresRecords {
    async fn claim(&self, tenant: &TenantId, request: &RequestName, run: RunId) -> Result<Claim, ServiceError> {
        let until = named_until((self.now)()).naive_utc();
        self.forget_old(tenant).await?;
        for _ in 0..CLAIM_TRIES {
            let taken = sqlx::query(
                "INSERT INTO stepgraph_named_requests (client_id, session_id, name, trace_id, state, taken_at, expires_at)
                 VALUES ($1, $2, $3, $4, 'claimed', $5, $6) ON CONFLICT DO NOTHING",
            )
            .bind(tenant.as_str())
            .bind(text(&request.session))
            .bind(text(&request.name))
            .bind(run.to_string())
            .bind(self.now())
            .bind(until)
            .execute(&self.pool)
            .await
            .map_err(database)?;
            if taken.rows_affected() == 1 {
                return Ok(Claim::Ours);
            }
            let row = sqlx::query_as(
                "SELECT trace_id, state, answer, taken_at FROM stepgraph_named_requests
                 WHERE client_id = $1 AND session_id = $2 AND name = $3",
            )
            .bind(tenant.as_str())
            .bind(text(&request.session))
            .bind(text(&request.name))
            .fetch_optional(&self.pool)
            .await
            .map_err(database)?;
            if let Some(row) = row {
                return Ok(Claim::Known(named(row)?));
            }
        }
        Err(ServiceError::Unavailable {
            service: super::stored::SERVICE,
            message: "a named request is taken and given free all the time: try again".to_owned(),
            source: None,
        })
    }

    async fn take_over(
        &self,
        tenant: &TenantId,
        request: &RequestName,
        found: &NamedRequest,
    ) -> Result<bool, ServiceError> {
        let (state, _) = found.state.parts();
        let taken = sqlx::query(
            "UPDATE stepgraph_named_requests
             SET taken_at = $1, state = CASE state WHEN 'failed' THEN 'begun' ELSE state END
             WHERE client_id = $2 AND session_id = $3 AND name = $4 AND trace_id = $5 AND taken_at = $6 AND state = $7
               AND state <> 'answered'",
        )
        .bind(self.now())
        .bind(tenant.as_str())
        .bind(text(&request.session))
        .bind(text(&request.name))
        .bind(found.run.to_string())
        .bind(found.taken_at.naive_utc())
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
            "UPDATE stepgraph_named_requests SET state = $1, answer = $2
             WHERE client_id = $3 AND session_id = $4 AND name = $5 AND trace_id = $6 AND state <> 'answered'",
        )
        .bind(word)
        .bind(answer.map(json).transpose()?)
        .bind(tenant.as_str())
        .bind(text(&request.session))
        .bind(text(&request.name))
        .bind(run.to_string())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    async fn forget_old(&self, tenant: &TenantId) -> Result<u64, ServiceError> {
        let deleted = sqlx::query("DELETE FROM stepgraph_named_requests WHERE client_id = $1 AND expires_at <= $2")
            .bind(tenant.as_str())
            .bind(self.now())
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(deleted.rows_affected())
    }

    async fn release(&self, tenant: &TenantId, request: &RequestName, run: RunId) -> Result<(), ServiceError> {
        sqlx::query(
            "DELETE FROM stepgraph_named_requests
             WHERE client_id = $1 AND session_id = $2 AND name = $3 AND trace_id = $4 AND state <> 'answered'",
        )
        .bind(tenant.as_str())
        .bind(text(&request.session))
        .bind(text(&request.name))
        .bind(run.to_string())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }
}
