//! A cache that is looked at, and a log that is.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use stepgraph::TenantId;
use stepgraph_nodes::service::{Cache, CacheState, Counted, ServiceError};
use uuid::Uuid;

use super::{NAMES, TRACES, WORDS};

/// Looks at all that is kept for a while, key and value.
pub(super) struct Watched {
    inner: Arc<dyn Cache>,
    leaks: Mutex<Vec<String>>,
    keys: Mutex<BTreeSet<(String, String)>>,
}

impl Watched {
    pub(super) fn over(inner: Arc<dyn Cache>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            leaks: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    fn look(&self, tenant: &TenantId, key: &str, value: &[u8]) {
        let other = 1 - usize::from(tenant.as_str() == NAMES[1]);
        let text = format!("{key} {}", String::from_utf8_lossy(value));
        if [WORDS, NAMES, TRACES].iter().any(|marks| text.contains(marks[other])) {
            self.leaks.lock().unwrap().push(format!("{tenant}: {text}"));
        }
        self.keys.lock().unwrap().insert((tenant.to_string(), key.to_owned()));
    }

    /// That it was used by both, and by neither for the other.
    pub(super) fn check(&self) {
        assert_eq!(*self.leaks.lock().unwrap(), Vec::<String>::new());
        for name in NAMES {
            let keys = self.keys.lock().unwrap();
            assert!(keys.iter().any(|(tenant, _)| tenant == name), "the cache was used");
        }
    }
}

#[async_trait]
impl Cache for Watched {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        let found = self.inner.get(tenant, key).await?;
        self.look(tenant, key, found.as_deref().unwrap_or_default());
        Ok(found)
    }

    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError> {
        self.look(tenant, key, &value);
        self.inner.put(tenant, key, value, ttl).await
    }

    async fn count(
        &self,
        tenant: &TenantId,
        key: &str,
        ttl: Duration,
        cap: Option<u64>,
    ) -> Result<Counted, ServiceError> {
        self.look(tenant, key, &[]);
        self.inner.count(tenant, key, ttl, cap).await
    }

    async fn generation(&self, tenant: &TenantId) -> Result<Uuid, ServiceError> {
        self.inner.generation(tenant).await
    }

    async fn renew(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        self.inner.renew(tenant).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        self.inner.erase(tenant).await
    }

    async fn state(&self) -> CacheState {
        self.inner.state().await
    }
}

type Written = Arc<Mutex<Vec<u8>>>;

/// Log lines, as they are written. Of a test that fails the warnings are shown.
pub(super) struct Lines(Written);

/// Where they are written.
#[derive(Clone)]
struct Writer(Written);

impl Lines {
    /// All that this process logs from now on, debugging included.
    pub(super) fn collected() -> Self {
        let written = Written::default();
        let writer = Writer(Arc::clone(&written));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("info,stepgraph=debug,stepgraph_server=debug,stepgraph_nodes=debug")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        // Of a process of its own under nextest; elsewhere the lines of other tests are among them, and harmless.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Self(written)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.text();
            let warnings = text
                .lines()
                .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
            println!("{}", warnings.collect::<Vec<_>>().join("\n"));
        }
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
