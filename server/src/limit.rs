//! How many chat messages a tenant may send in an hour.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, SecondsFormat, Utc};
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    ALERT_THRESHOLD_PERCENT, Alert, AlertLevel, Alerts, Cache, Client, Counted, MESSAGES, Tier, embedded::MokaCache,
};

use crate::{
    backend::{Backend, HttpSettings, Limits},
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
        let reset = time(self.reset);
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

/// Counts messages by tenant and window, and notices when a tenant comes near its limit.
pub(crate) struct Limiter {
    cache: Arc<dyn Cache>,
    /// Counts where the cache does not answer: too few rather than none.
    near: MokaCache,
    limits: Limits,
    upgrade_url: Option<String>,
    metrics: Arc<Metrics>,
    alerts: Arc<dyn Alerts>,
    /// The highest level that was noticed in a tenant's window, so that most messages ask no store. One entry a tenant.
    noticed: Mutex<HashMap<TenantId, (i64, AlertLevel)>>,
}

impl Limiter {
    pub(crate) fn new(backend: &Backend, settings: &HttpSettings) -> Self {
        Self {
            cache: Arc::clone(&backend.cache),
            near: MokaCache::new(),
            limits: settings.limits,
            upgrade_url: settings.upgrade_url.clone(),
            metrics: Arc::clone(&backend.metrics),
            alerts: Arc::clone(&backend.alerts),
            noticed: Mutex::default(),
        }
    }

    /// Counts one message. `None` for a client without a limit. Above it a client of the paid tier is served at the rate of
    /// its overage, unless it has a hard cap; what is refused is not counted.
    pub(crate) async fn take(&self, client: &Client, now: DateTime<Utc>) -> Result<Option<Quota>, ApiError> {
        let Some(limit) = messages_max(&self.limits, client) else {
            return Ok(None);
        };
        let window = Window::at(now, self.limits.window);
        let is_served_above = client.tier == Tier::Paid && !client.settings.hard_cap;
        let cap = (!is_served_above).then_some(limit);
        let counted = self.count(&client.tenant, window, cap).await?;
        let quota = Quota {
            limit,
            remaining: limit.saturating_sub(counted.count),
            reset: window.end(),
            is_overage: counted.count > limit,
        };
        self.notice(client, window, counted.count, limit).await;
        if counted.accepted {
            Ok(Some(quota))
        } else {
            self.metrics.chat_limited(&client.tenant);
            let refusal = quota.refusal(now);
            Err(match &self.upgrade_url {
                Some(url) if client.tier == Tier::Free => refusal.detail("upgradeUrl", url.as_str()),
                Some(_) | None => refusal,
            })
        }
    }

    /// What is left, without counting: for an answer that was counted when it was asked for.
    pub(crate) async fn standing(&self, client: &Client, now: DateTime<Utc>) -> Option<Quota> {
        let limit = messages_max(&self.limits, client)?;
        let window = Window::at(now, self.limits.window);
        let counted = self.count(&client.tenant, window, Some(0)).await.ok()?;
        Some(Quota {
            limit,
            remaining: limit.saturating_sub(counted.count),
            reset: window.end(),
            is_overage: false,
        })
    }

    async fn count(&self, tenant: &TenantId, window: Window, cap: Option<u64>) -> Result<Counted, ApiError> {
        let key = format!("{MESSAGES}:{}", window.number);
        let counted = match self.cache.count(tenant, &key, self.limits.window, cap).await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::warn!(%error, "the cache is away: messages are counted in this process alone");
                let near = self.near.count(tenant, &key, self.limits.window, cap).await?;
                Counted { alone: true, ..near }
            }
        };
        if counted.alone {
            self.metrics.counted_alone();
        }
        Ok(counted)
    }

    /// Raises the alerts of the levels that the count has come to. The store keeps one of each for a window; a message does
    /// not fail because it cannot, and the next one tries again.
    async fn notice(&self, client: &Client, window: Window, count: u64, limit: u64) {
        let threshold = client
            .settings
            .alert_threshold_percent
            .unwrap_or(ALERT_THRESHOLD_PERCENT);
        let level = if count >= limit {
            AlertLevel::Limit
        } else if u128::from(count) * 100 >= u128::from(limit) * u128::from(threshold) {
            AlertLevel::Threshold
        } else {
            return;
        };
        let is_noticed = |noticed: &HashMap<_, _>| {
            noticed
                .get(&client.tenant)
                .is_some_and(|known| *known >= (window.number, level))
        };
        if is_noticed(&self.noticed.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let levels = [(AlertLevel::Threshold, threshold), (AlertLevel::Limit, 100)];
        for (level, percent) in levels.into_iter().filter(|(raised, _)| *raised <= level) {
            let alert = Alert {
                level,
                percent,
                count,
                limit,
                window_start: time(window.start()),
                resets_at: time(window.end()),
                webhook: client.settings.alert_webhook.clone(),
            };
            match self.alerts.raise(&client.tenant, &alert).await {
                Ok(true) => {
                    tracing::info!(tenant = %client.tenant, percent, count, limit, "a tenant comes to its limit");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "that a tenant comes to its limit cannot be kept: tried again with its next message");
                    return;
                }
            }
        }
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.insert(client.tenant.clone(), (window.number, level));
    }
}

/// A stretch of time in which messages are counted together.
#[derive(Debug, Clone, Copy)]
struct Window {
    number: i64,
    seconds: i64,
}

impl Window {
    fn at(now: DateTime<Utc>, length: Duration) -> Self {
        let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX).max(1);
        Self {
            number: now.timestamp().div_euclid(seconds),
            seconds,
        }
    }

    /// Unix seconds.
    const fn start(self) -> i64 {
        self.number.saturating_mul(self.seconds)
    }

    const fn end(self) -> i64 {
        self.number.saturating_add(1).saturating_mul(self.seconds)
    }
}

fn time(unix_seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(unix_seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
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
    use stepgraph_nodes::service::{CacheState, Delivery, ServiceError, embedded::SqliteRecords};

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

        async fn erase(&self, _: &TenantId) -> Result<(), ServiceError> {
            Err(away())
        }

        async fn state(&self) -> CacheState {
            CacheState::Away
        }
    }

    async fn limiter(cache: Arc<dyn Cache>, limits: Limits) -> Limiter {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        Limiter {
            cache,
            near: MokaCache::new(),
            limits,
            upgrade_url: Some("https://app.example/upgrade".to_owned()),
            metrics: Arc::default(),
            alerts: Arc::new(SqliteRecords::open(pool).await.unwrap()),
            noticed: Mutex::default(),
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
        let limiter = limiter(Arc::new(Away), limits).await;
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

    #[tokio::test]
    async fn a_tenant_is_noticed_once_at_each_level_of_a_window_whatever_is_refused() {
        let limits = Limits {
            free_messages: 10,
            ..Limits::default()
        };
        let limiter = limiter(Arc::new(MokaCache::new()), limits).await;
        let mut client = client();
        client.settings.alert_threshold_percent = Some(75);
        client.settings.alert_webhook = Some("https://hooks.example/".to_owned());
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let raised = async || {
            let alerts = limiter.alerts.alerts(&client.tenant, 10).await.unwrap();
            let told = alerts
                .into_iter()
                .map(|(alert, delivery)| (alert.window_start.timestamp(), alert.percent, alert.count, delivery));
            told.collect::<Vec<_>>()
        };

        for _ in 0..7 {
            limiter.take(&client, at(3_600)).await.unwrap();
        }
        assert_eq!(raised().await, []);
        limiter.take(&client, at(3_700)).await.unwrap();
        assert_eq!(raised().await, [(3_600, 75, 8, Delivery::Waiting)]);
        for _ in 0..5 {
            let _ = limiter.take(&client, at(3_800)).await;
        }
        let both = [(3_600, 100, 10, Delivery::Waiting), (3_600, 75, 8, Delivery::Waiting)];
        assert_eq!(raised().await, both);

        limiter.take(&client, at(7_200)).await.unwrap();
        assert_eq!(raised().await, both, "a new window begins quietly");
    }

    #[tokio::test]
    async fn what_is_refused_is_not_counted_and_says_where_to_upgrade_on_the_free_tier_alone() {
        let limits = Limits {
            free_messages: 1,
            paid_messages: 1,
            ..Limits::default()
        };
        let limiter = limiter(Arc::new(MokaCache::new()), limits).await;
        let at = DateTime::from_timestamp(0, 0).unwrap();
        let paid = Client {
            tier: Tier::Paid,
            ..Client::new(TenantId::authenticated("paid").unwrap())
        };
        for (mut client, url) in [(client(), true), (paid.clone(), false)] {
            client.settings.hard_cap = true;
            limiter.take(&client, at).await.unwrap();
            for _ in 0..3 {
                let refused = limiter.take(&client, at).await.unwrap_err();
                let told = format!("{refused:?}");
                assert_eq!(told.contains("https://app.example/upgrade"), url, "{told}");
            }
        }
        let served = limiter.take(&paid, at).await.unwrap().unwrap();
        assert!(
            served.is_overage(),
            "the second message that was counted, whatever was refused before"
        );
    }
}
