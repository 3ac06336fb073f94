//! How many chat messages a tenant may send in an hour.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, SecondsFormat, Utc};
use stepgraph::TenantId;
use stepgraph_nodes::service::{Cache, Client, Tier};

use crate::{
    backend::Limits,
    error::{ApiError, ErrorCode},
    metrics::Metrics,
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The headers a browser's script may read.
pub(crate) const HEADERS: [HeaderName; 3] = [LIMIT, REMAINING, RESET];

/// What is left of a tenant's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    limit: u64,
    remaining: u64,
    reset: i64,
    /// Above the limit, and served all the same.
    is_overage: bool,
}

impl Quota {
    /// Whether the message is above the limit, and booked as such.
    pub(crate) const fn is_overage(self) -> bool {
        self.is_overage
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset));
    }

    pub(crate) fn refusal(self, now: DateTime<Utc>) -> ApiError {
        let wait = u64::try_from(self.reset.saturating_sub(now.timestamp())).unwrap_or_default();
        let reset = DateTime::from_timestamp(self.reset, 0).unwrap_or(now);
        let mut headers = HeaderMap::new();
        self.write(&mut headers);
        let error = ApiError::new(
            ErrorCode::RateLimited,
            "too many messages for now, please try again later",
        )
        .detail("reason", "RATE_LIMIT_EXCEEDED")
        .detail("resetAt", reset.to_rfc3339_opts(SecondsFormat::Secs, true))
        .retry_after(Duration::from_secs(wait));
        headers.into_iter().fold(error, |error, (name, value)| match name {
            Some(name) => error.header(name, value),
            None => error,
        })
    }
}

/// Counts messages by tenant and window.
pub(crate) struct Limiter {
    cache: Arc<dyn Cache>,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// Counts of the running window where the cache does not answer: too few rather than none. One entry a tenant.
    fallback: Mutex<HashMap<TenantId, (i64, u64)>>,
}

impl Limiter {
    pub(crate) fn new(cache: Arc<dyn Cache>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            cache,
            limits,
            metrics,
            fallback: Mutex::default(),
        }
    }

    /// Counts one message. `None` for a client without a limit. Above it a client of the paid tier is served at the rate of
    /// its overage, unless it has a hard cap.
    pub(crate) async fn take(&self, client: &Client, now: DateTime<Utc>) -> Result<Option<Quota>, ApiError> {
        let Some(limit) = messages_max(&self.limits, client) else {
            return Ok(None);
        };
        let length = i64::try_from(self.limits.window.as_secs()).unwrap_or(i64::MAX).max(1);
        let window = now.timestamp().div_euclid(length);
        let count = self.count(&client.tenant, window).await;
        let reset = window.saturating_add(1).saturating_mul(length);
        let quota = Quota {
            limit,
            remaining: limit.saturating_sub(count),
            reset,
            is_overage: count > limit,
        };
        let is_served_above = client.tier == Tier::Paid && !client.settings.hard_cap;
        if quota.is_overage && !is_served_above {
            self.metrics.chat_limited(&client.tenant);
            Err(quota.refusal(now))
        } else {
            Ok(Some(quota))
        }
    }

    async fn count(&self, tenant: &TenantId, window: i64) -> u64 {
        match self
            .cache
            .increment(tenant, &format!("rate_limit:{window}"), self.limits.window)
            .await
        {
            Ok(count) => count,
            Err(error) => {
                self.metrics.counted_alone();
                tracing::warn!(%error, "the cache is away: messages are counted in this process alone");
                let mut counts = self.fallback.lock().unwrap_or_else(PoisonError::into_inner);
                let entry = counts.entry(tenant.clone()).or_insert((window, 0));
                *entry = if entry.0 == window {
                    (window, entry.1.saturating_add(1))
                } else {
                    (window, 1)
                };
                entry.1
            }
        }
    }
}

/// How many messages a client may send in a window; `None` without a limit.
pub(crate) fn messages_max(limits: &Limits, client: &Client) -> Option<u64> {
    let limit = match client.tier {
        Tier::Free => limits.free_messages,
        Tier::Paid => client.settings.hourly_limit.unwrap_or(limits.paid_messages),
    };
    (!client.unlimited).then_some(limit)
}

/// How many documents a tenant may keep: its own number, else its tier's.
pub(crate) fn documents_max(limits: &Limits, client: &Client) -> u64 {
    client.settings.document_quota.unwrap_or(match client.tier {
        Tier::Free => limits.free_documents,
        Tier::Paid => limits.paid_documents,
    })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use stepgraph_nodes::service::{CacheState, Counted, ServiceError};

    use super::*;

    /// A cache whose server is away.
    struct Away;

    fn away() -> ServiceError {
        ServiceError::Unavailable {
            service: "cache",
            message: "away".to_owned(),
            source: None,
        }
    }

    #[async_trait]
    impl Cache for Away {
        async fn get(&self, _: &TenantId, _: &str) -> Result<Option<Vec<u8>>, ServiceError> {
            Err(away())
        }

        async fn put(&self, _: &TenantId, _: &str, _: Vec<u8>, _: Duration) -> Result<(), ServiceError> {
            Err(away())
        }

        async fn count(&self, _: &TenantId, _: &str, _: Duration, _: Option<u64>) -> Result<Counted, ServiceError> {
            Err(away())
        }

        async fn generation(&self, _: &TenantId) -> Result<uuid::Uuid, ServiceError> {
            Err(away())
        }

        async fn renew(&self, _: &TenantId) -> Result<(), ServiceError> {
            Err(away())
        }

        async fn state(&self) -> CacheState {
            CacheState::Away
        }
    }

    fn client() -> Client {
        Client::new(TenantId::authenticated("acme").unwrap())
    }

    #[tokio::test]
    async fn without_its_cache_the_limit_holds_in_this_process_and_the_next_window_begins_anew() {
        let limits = Limits {
            free_messages: 1,
            window: Duration::from_mins(1),
            ..Limits::default()
        };
        let limiter = Limiter::new(Arc::new(Away), limits, Arc::default());
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();

        let first = limiter.take(&client(), at(59)).await.unwrap();
        assert_eq!(
            first,
            Some(Quota {
                limit: 1,
                remaining: 0,
                reset: 60,
                is_overage: false,
            })
        );
        assert!(limiter.take(&client(), at(59)).await.is_err());
        assert!(limiter.take(&client(), at(60)).await.is_ok());
    }

    #[test]
    fn a_tenant_keeps_as_many_documents_as_it_has_set_else_its_tiers_number() {
        let (limits, mut own) = (Limits::default(), client());
        assert_eq!(documents_max(&limits, &own), limits.free_documents);
        own.settings.document_quota = Some(3);
        assert_eq!(documents_max(&limits, &own), 3);
    }
}
