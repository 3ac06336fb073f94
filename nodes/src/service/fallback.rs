//! A cache on a server, and what happens while that is away.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use stepgraph::TenantId;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Cache, CacheState, Counted, ServiceError, embedded::MokaCache};

/// How long a server that was away is left alone before one call tries it again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Serves from a cache that is shared with other processes, and from this process's own memory while that one is away.
///
/// Slower then, never wrong: counters and values go on in this process alone, but [`generation`](Cache::generation) is an
/// error, since nobody here can tell what other processes have changed. Generations that could not be renewed are renewed
/// before the server's values are used again.
#[derive(Clone)]
pub struct FallbackCache {
    far: Arc<dyn Cache>,
    near: MokaCache,
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    /// When to try next, while the server is away.
    try_at: Option<Instant>,
    /// Tenants whose generation is to be renewed, one entry a tenant, with the number of the last change.
    owed: HashMap<TenantId, u64>,
    changes: u64,
}

impl fmt::Debug for FallbackCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackCache").finish_non_exhaustive()
    }
}

impl FallbackCache {
    /// Serves from `far`, and without it while it is away.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use stepgraph_nodes::service::{FallbackCache, Secret, redis::RedisCache};
    /// # fn open() -> Result<(), stepgraph_nodes::service::ServiceError> {
    /// let shared = RedisCache::new(&Secret::new("redis://localhost/"))?;
    /// let cache = FallbackCache::new(Arc::new(shared));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn new(far: Arc<dyn Cache>) -> Self {
        Self {
            far,
            near: MokaCache::new(),
            line: Arc::default(),
        }
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server may be asked now. While it is away, one call a second may.
    fn may_try(&self) -> bool {
        let mut line = self.line();
        let now = Instant::now();
        match line.try_at {
            None => true,
            Some(at) if at <= now => {
                line.try_at = Some(now + TRY_AGAIN_AFTER);
                true
            }
            Some(_) => false,
        }
    }

    fn is_away(&self, error: &ServiceError) {
        let before = self.line().try_at.replace(Instant::now() + TRY_AGAIN_AFTER);
        if before.is_none() {
            tracing::warn!(code = error.code(), %error, "the shared cache is away: this process goes on with its own");
        }
    }

    fn is_back(&self) {
        if self.line().try_at.take().is_some() {
            tracing::info!("the shared cache is back");
        }
    }

    /// Asks the server; `None` while it is away.
    async fn far<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Option<T> {
        if !self.may_try() {
            return None;
        }
        let answered = match self.pay().await {
            Ok(()) => call.await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(value) => {
                self.is_back();
                Some(value)
            }
            Err(error) => {
                self.is_away(&error);
                None
            }
        }
    }

    /// Renews what could not be renewed when it should have been.
    async fn pay(&self) -> Result<(), ServiceError> {
        loop {
            let next = self
                .line()
                .owed
                .iter()
                .next()
                .map(|(tenant, change)| (tenant.clone(), *change));
            let Some((tenant, change)) = next else { return Ok(()) };
            self.far.renew(&tenant).await?;
            let mut line = self.line();
            // A change that came meanwhile may have missed this renewal, and asks for one of its own.
            if line.owed.get(&tenant) == Some(&change) {
                line.owed.remove(&tenant);
            }
        }
    }
}

fn away(message: &str) -> ServiceError {
    ServiceError::Unavailable {
        service: "cache",
        message: message.to_owned(),
        source: None,
    }
}

#[async_trait]
impl Cache for FallbackCache {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        match self.far(self.far.get(tenant, key)).await {
            Some(value) => Ok(value),
            None => self.near.get(tenant, key).await,
        }
    }

    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError> {
        match self.far(self.far.put(tenant, key, value.clone(), ttl)).await {
            Some(()) => Ok(()),
            None => self.near.put(tenant, key, value, ttl).await,
        }
    }

    async fn count(
        &self,
        tenant: &TenantId,
        key: &str,
        ttl: Duration,
        cap: Option<u64>,
    ) -> Result<Counted, ServiceError> {
        match self.far(self.far.count(tenant, key, ttl, cap)).await {
            Some(counted) => Ok(counted),
            None => Ok(Counted {
                alone: true,
                ..self.near.count(tenant, key, ttl, cap).await?
            }),
        }
    }

    async fn generation(&self, tenant: &TenantId) -> Result<Uuid, ServiceError> {
        let known = self.far(self.far.generation(tenant)).await;
        known.ok_or_else(|| away("nobody can tell what other processes have changed while it is away"))
    }

    async fn renew(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        // Owed before it is tried: a call that is dropped in the middle still has it renewed by the next one.
        {
            let mut line = self.line();
            line.changes = line.changes.wrapping_add(1);
            let change = line.changes;
            line.owed.insert(tenant.clone(), change);
        }
        self.far(std::future::ready(Ok(()))).await;
        Ok(())
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        self.near.erase(tenant).await?;
        let erased = self.far(self.far.erase(tenant)).await;
        erased.ok_or_else(|| away("it holds values of a tenant that is erased: do it again once it answers"))
    }

    async fn state(&self) -> CacheState {
        let ask = async {
            match self.far.state().await {
                CacheState::Away => Err(away("it does not answer")),
                there @ (CacheState::Answering | CacheState::Embedded) => Ok(there),
            }
        };
        self.far(ask).await.unwrap_or(CacheState::Away)
    }
}
