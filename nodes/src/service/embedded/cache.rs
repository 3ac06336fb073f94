//! A cache in this process's memory.

use std::{
    fmt,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use moka::{Expiry, future, ops::compute::Op};
use stepgraph::TenantId;
use uuid::Uuid;

use crate::service::{Cache, CacheState, Counted, ServiceError};

/// Bytes of keys and values that a cache holds unless told otherwise.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most counters that live at once. More than there are tenants with a running hour, so that none is pushed out.
const COUNTERS_MAX: u64 = 1_000_000;

/// Most tenants whose generation is known at once. One that is pushed out gets a new generation, and so nothing old.
const GENERATIONS_MAX: u64 = 100_000;

/// What every key begins with: no value is ever found without its tenant.
type Key = (TenantId, Box<str>);

/// [`Cache`] over moka. Values and counters are apart: values make room for each other, counters never make room for
/// values, since a lost counter would lift a limit.
#[derive(Clone)]
pub struct MokaCache {
    values: future::Cache<Key, Value>,
    counters: future::Cache<Key, Counter>,
    generations: future::Cache<TenantId, Uuid>,
}

impl MokaCache {
    /// A cache of 64 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(BYTES_MAX)
    }

    /// A cache whose keys and values take `bytes_max` bytes at most; what is used least goes first.
    #[must_use]
    pub fn with_capacity(bytes_max: u64) -> Self {
        Self {
            values: future::Cache::builder()
                .max_capacity(bytes_max)
                .weigher(|(tenant, key): &Key, value: &Value| {
                    let bytes = tenant.as_str().len() + key.len() + value.bytes.len();
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .expire_after(OwnTtl)
                .build(),
            counters: future::Cache::builder()
                .max_capacity(COUNTERS_MAX)
                .expire_after(OwnTtl)
                .build(),
            generations: future::Cache::new(GENERATIONS_MAX),
        }
    }
}

impl Default for MokaCache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MokaCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaCache")
            .field("values", &self.values.entry_count())
            .field("counters", &self.counters.entry_count())
            .field("generations", &self.generations.entry_count())
            .finish()
    }
}

#[async_trait]
impl Cache for MokaCache {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(self
            .values
            .get(&(tenant.clone(), key.into()))
            .await
            .map(|value| value.bytes))
    }

    async fn put(&self, tenant: &TenantId, key: &str, bytes: Vec<u8>, ttl: Duration) -> Result<(), ServiceError> {
        self.values
            .insert((tenant.clone(), key.into()), Value { bytes, ttl })
            .await;
        Ok(())
    }

    async fn count(
        &self,
        tenant: &TenantId,
        key: &str,
        ttl: Duration,
        cap: Option<u64>,
    ) -> Result<Counted, ServiceError> {
        let mut accepted = true;
        let counted = self
            .counters
            .entry((tenant.clone(), key.into()))
            .and_compute_with(async |entry| {
                let counter = entry.map(moka::Entry::into_value);
                accepted = cap.is_none_or(|cap| counter.map_or(0, |counter| counter.count) < cap);
                match (accepted, counter) {
                    (false, _) => Op::Nop,
                    (true, Some(counter)) => Op::Put(counter.next()),
                    (true, None) => Op::Put(Counter::new(ttl)),
                }
            })
            .await
            .into_entry();
        Ok(counted.map(moka::Entry::into_value).map_or(
            Counted {
                count: 0,
                expires_in: ttl,
                accepted,
                alone: false,
            },
            |counter| Counted {
                count: counter.count,
                expires_in: counter.left(),
                accepted,
                alone: false,
            },
        ))
    }

    async fn generation(&self, tenant: &TenantId) -> Result<Uuid, ServiceError> {
        Ok(self.generations.get_with_by_ref(tenant, async { Uuid::new_v4() }).await)
    }

    async fn renew(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        self.generations.insert(tenant.clone(), Uuid::new_v4()).await;
        Ok(())
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        for (key, _) in &self.values {
            if key.0 == *tenant {
                self.values.invalidate(&*key).await;
            }
        }
        for (key, _) in &self.counters {
            if key.0 == *tenant {
                self.counters.invalidate(&*key).await;
            }
        }
        self.generations.invalidate(tenant).await;
        Ok(())
    }

    async fn state(&self) -> CacheState {
        CacheState::Embedded
    }
}

#[derive(Clone)]
struct Value {
    bytes: Vec<u8>,
    ttl: Duration,
}

#[derive(Clone, Copy)]
struct Counter {
    count: u64,
    ttl: Duration,
    ends: tokio::time::Instant,
}

impl Counter {
    fn new(ttl: Duration) -> Self {
        let now = tokio::time::Instant::now();
        Self {
            count: 1,
            ttl,
            ends: now.checked_add(ttl).unwrap_or(now),
        }
    }

    const fn next(self) -> Self {
        Self {
            count: self.count.saturating_add(1),
            ..self
        }
    }

    fn left(self) -> Duration {
        self.ends.saturating_duration_since(tokio::time::Instant::now())
    }
}

/// Each entry lives for its own time: a value from its last write, a counter from its first increment.
struct OwnTtl;

impl Expiry<Key, Value> for OwnTtl {
    fn expire_after_create(&self, _: &Key, value: &Value, _: Instant) -> Option<Duration> {
        Some(value.ttl)
    }

    fn expire_after_update(&self, _: &Key, value: &Value, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(value.ttl)
    }
}

impl Expiry<Key, Counter> for OwnTtl {
    fn expire_after_create(&self, _: &Key, counter: &Counter, _: Instant) -> Option<Duration> {
        Some(counter.ttl)
    }

    fn expire_after_update(&self, _: &Key, counter: &Counter, _: Instant, left: Option<Duration>) -> Option<Duration> {
        // A counter that expired and was not yet swept comes here as well, with its first increment of a new life.
        if counter.count == 1 { Some(counter.ttl) } else { left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn tenant(id: &str) -> TenantId {
        TenantId::authenticated(id).unwrap()
    }

    #[tokio::test]
    async fn a_value_is_found_by_its_own_tenant_only() {
        let cache = MokaCache::new();
        cache.put(&tenant("a"), "key", b"of a".to_vec(), LONG).await.unwrap();

        assert_eq!(
            cache.get(&tenant("a"), "key").await.unwrap().as_deref(),
            Some(&b"of a"[..])
        );
        assert_eq!(cache.get(&tenant("b"), "key").await.unwrap(), None);
        assert_eq!(cache.increment(&tenant("a"), "count", LONG).await.unwrap(), 1);
        assert_eq!(cache.increment(&tenant("b"), "count", LONG).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_value_lives_as_long_as_its_last_write_says() {
        let cache = MokaCache::new();
        cache.put(&tenant("a"), "shortened", b"1".to_vec(), LONG).await.unwrap();
        cache
            .put(&tenant("a"), "shortened", b"2".to_vec(), Duration::ZERO)
            .await
            .unwrap();
        cache
            .put(&tenant("a"), "lengthened", b"1".to_vec(), Duration::from_millis(200))
            .await
            .unwrap();
        cache
            .put(&tenant("a"), "lengthened", b"2".to_vec(), LONG)
            .await
            .unwrap();

        let expired = async {
            while cache.get(&tenant("a"), "shortened").await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, expired).await.unwrap();
        assert!(cache.get(&tenant("a"), "lengthened").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_counter_lives_from_its_first_increment_and_then_begins_again() {
        let cache = MokaCache::new();
        assert_eq!(
            cache
                .increment(&tenant("a"), "count", Duration::from_millis(20))
                .await
                .unwrap(),
            1
        );

        // Were a later increment to prolong it, the counter would never come back to one.
        let reborn = async {
            while cache.increment(&tenant("a"), "count", LONG).await.unwrap() != 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reborn).await.unwrap();
        assert_eq!(cache.increment(&tenant("a"), "count", LONG).await.unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn increments_at_once_are_all_counted() {
        let cache = std::sync::Arc::new(MokaCache::new());
        let tasks: tokio::task::JoinSet<_> = (0..200)
            .map(|_| {
                let cache = std::sync::Arc::clone(&cache);
                async move { cache.increment(&tenant("a"), "count", LONG).await.unwrap() }
            })
            .collect();

        let mut counts = tasks.join_all().await;
        counts.sort_unstable();

        assert_eq!(counts, (1..=200).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_flood_of_values_stays_within_the_bytes_and_never_pushes_out_a_counter() {
        let cache = MokaCache::with_capacity(10_000);
        cache.increment(&tenant("a"), "limit", LONG).await.unwrap();

        for value in 0..1000 {
            cache
                .put(&tenant("a"), &format!("value {value}"), vec![0; 1000], LONG)
                .await
                .unwrap();
        }
        cache.values.run_pending_tasks().await;

        assert!(cache.values.weighted_size() <= 10_000);
        assert_eq!(cache.increment(&tenant("a"), "limit", LONG).await.unwrap(), 2);
    }
}
