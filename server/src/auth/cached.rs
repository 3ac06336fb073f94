//! Clients kept for seconds, so that a message does not wait for the records before it is known whose it is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use stepgraph::TenantId;
use stepgraph_nodes::service::{Client, ClientSettings, ClientStatus, Clients, ServiceError};

/// How long a client, or that there is none, is believed. A change by another process acts after this time.
const KEPT: Duration = Duration::from_secs(5);
/// Clients kept at most.
const CLIENTS_MAX: u64 = 10_000;
/// Keys and ids kept at most of which nothing is known. A place of its own: guessed keys push no client out.
const UNKNOWN_MAX: u64 = 10_000;

/// What a client was asked for by. Keys are kept as digests: nothing of a key shows in how long a look-up takes, and a
/// long one takes no more room than a short one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Asked {
    Key([u8; 32]),
    Id(String),
}

impl Asked {
    fn key(key: &str) -> Self {
        Self::Key(Sha256::digest(key.as_bytes()).into())
    }
}

/// [`Clients`] that remembers for [`KEPT`] what it was told. Whatever is changed through it acts at once.
pub(crate) struct CachedClients {
    inner: Arc<dyn Clients>,
    known: Cache<Asked, Arc<Client>>,
    unknown: Cache<Asked, ()>,
}

impl CachedClients {
    pub(crate) fn new(inner: Arc<dyn Clients>) -> Self {
        Self::kept_for(inner, KEPT)
    }

    fn kept_for(inner: Arc<dyn Clients>, kept: Duration) -> Self {
        Self {
            inner,
            known: Cache::builder()
                .max_capacity(CLIENTS_MAX)
                .time_to_live(kept)
                .support_invalidation_closures()
                .build(),
            unknown: Cache::builder().max_capacity(UNKNOWN_MAX).time_to_live(kept).build(),
        }
    }

    async fn remembered(&self, asked: &Asked) -> Option<Option<Client>> {
        if let Some(client) = self.known.get(asked).await {
            return Some(Some((*client).clone()));
        }
        self.unknown.get(asked).await.map(|()| None)
    }

    async fn remember(&self, asked: Asked, found: Option<&Client>) {
        match found {
            Some(client) => self.known.insert(asked, Arc::new(client.clone())).await,
            None => self.unknown.insert(asked, ()).await,
        }
    }

    /// Forgets all that may speak of this tenant: a new client was unknown a moment ago, under a key nobody here knew.
    fn forget(&self, tenant: &TenantId) {
        let tenant = tenant.clone();
        if self
            .known
            .invalidate_entries_if(move |_, client| client.tenant == tenant)
            .is_err()
        {
            // Only without support for closures, which `new` asks for; forgetting all is right then, too.
            self.known.invalidate_all();
        }
        self.unknown.invalidate_all();
    }
}

#[async_trait]
impl Clients for CachedClients {
    async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError> {
        let asked = Asked::key(public_key);
        if let Some(known) = self.remembered(&asked).await {
            return Ok(known);
        }
        let found = self.inner.by_key(public_key).await?;
        self.remember(asked, found.as_ref()).await;
        Ok(found)
    }

    async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError> {
        let asked = Asked::Id(id.to_owned());
        if let Some(known) = self.remembered(&asked).await {
            return Ok(known);
        }
        let found = self.inner.by_id(id).await?;
        self.remember(asked, found.as_ref()).await;
        Ok(found)
    }

    async fn page(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Client>, ServiceError> {
        self.inner.page(after, limit).await
    }

    async fn put(&self, client: &Client) -> Result<String, ServiceError> {
        let key = self.inner.put(client).await;
        self.forget(&client.tenant);
        key
    }

    async fn set(&self, tenant: &TenantId, settings: &ClientSettings) -> Result<bool, ServiceError> {
        let done = self.inner.set(tenant, settings).await;
        self.forget(tenant);
        done
    }

    async fn set_status(&self, tenant: &TenantId, status: ClientStatus) -> Result<bool, ServiceError> {
        let done = self.inner.set_status(tenant, status).await;
        self.forget(tenant);
        done
    }

    async fn key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
        self.inner.key(tenant).await
    }

    async fn rotate_key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
        let key = self.inner.rotate_key(tenant).await;
        self.forget(tenant);
        key
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sqlx::SqlitePool;
    use stepgraph_nodes::service::embedded::SqliteRecords;

    use super::*;

    /// Counts how often the records are asked.
    struct Counted {
        inner: SqliteRecords,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Clients for Counted {
        async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.inner.by_key(public_key).await
        }

        async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.inner.by_id(id).await
        }

        async fn page(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Client>, ServiceError> {
            self.inner.page(after, limit).await
        }

        async fn put(&self, client: &Client) -> Result<String, ServiceError> {
            self.inner.put(client).await
        }

        async fn set(&self, tenant: &TenantId, settings: &ClientSettings) -> Result<bool, ServiceError> {
            self.inner.set(tenant, settings).await
        }

        async fn set_status(&self, tenant: &TenantId, status: ClientStatus) -> Result<bool, ServiceError> {
            self.inner.set_status(tenant, status).await
        }

        async fn key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
            self.inner.key(tenant).await
        }

        async fn rotate_key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
            self.inner.rotate_key(tenant).await
        }
    }

    async fn records() -> (tempfile::TempDir, Arc<Counted>) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("records.db");
        let pool = SqlitePool::connect(&format!("sqlite://{}?mode=rwc", path.display()))
            .await
            .unwrap();
        let inner = SqliteRecords::open(pool).await.unwrap();
        let asked = AtomicUsize::new(0);
        (folder, Arc::new(Counted { inner, asked }))
    }

    fn acme() -> Client {
        Client::new(TenantId::authenticated("acme").unwrap())
    }

    #[tokio::test]
    async fn the_records_are_asked_once_for_a_key_known_or_not() {
        let (_folder, counted) = records().await;
        let cached = CachedClients::kept_for(Arc::clone(&counted) as _, Duration::from_hours(1));
        let key = cached.put(&acme()).await.unwrap();

        for _ in 0..3 {
            assert_eq!(cached.by_key(&key).await.unwrap(), Some(acme()));
            assert_eq!(cached.by_key("pk_live_guess").await.unwrap(), None);
            assert_eq!(cached.by_id("acme").await.unwrap(), Some(acme()));
        }

        assert_eq!(counted.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_change_acts_at_once() {
        let (_folder, counted) = records().await;
        let cached = CachedClients::kept_for(counted as _, Duration::from_hours(1));
        let tenant = acme().tenant;
        assert_eq!(cached.by_id("acme").await.unwrap(), None);
        let key = cached.put(&acme()).await.unwrap();
        assert!(
            cached.by_id("acme").await.unwrap().is_some(),
            "that it was unknown is forgotten"
        );

        cached.by_key(&key).await.unwrap();
        cached.set_status(&tenant, ClientStatus::Paused).await.unwrap();
        assert_eq!(cached.by_key(&key).await.unwrap().unwrap().status, ClientStatus::Paused);
        let settings = ClientSettings {
            hourly_limit: Some(7),
            ..ClientSettings::default()
        };
        cached.set(&tenant, &settings).await.unwrap();
        assert_eq!(cached.by_key(&key).await.unwrap().unwrap().settings, settings);
        let new = cached.rotate_key(&tenant).await.unwrap().unwrap();
        assert_eq!(cached.by_key(&key).await.unwrap(), None);
        assert!(cached.by_key(&new).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_another_process_changes_acts_after_the_time_it_is_kept() {
        let (_folder, counted) = records().await;
        let cached = CachedClients::kept_for(Arc::clone(&counted) as _, Duration::from_millis(1));
        let key = cached.put(&acme()).await.unwrap();
        cached.by_key(&key).await.unwrap();

        counted.inner.rotate_key(&acme().tenant).await.unwrap();

        let gone = async {
            while cached.by_key(&key).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    }

    #[tokio::test]
    async fn guessed_keys_take_no_more_than_their_own_room() {
        let (_folder, counted) = records().await;
        let cached = CachedClients::kept_for(Arc::clone(&counted) as _, Duration::from_hours(1));
        let key = cached.put(&acme()).await.unwrap();
        cached.by_key(&key).await.unwrap();

        for guess in 0..UNKNOWN_MAX + 500 {
            cached.remember(Asked::key(&format!("pk_live_{guess}")), None).await;
        }
        cached.unknown.run_pending_tasks().await;

        assert!(cached.unknown.entry_count() <= UNKNOWN_MAX);
        let asked = counted.asked.load(Ordering::SeqCst);
        assert!(cached.by_key(&key).await.unwrap().is_some());
        assert_eq!(counted.asked.load(Ordering::SeqCst), asked, "the client is still kept");
    }
}
