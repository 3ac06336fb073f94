//! A cache in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{CacheError, CacheKey, NodeCache};

/// Keeps what nodes gave in memory, within bounds: what was not used for longest leaves first.
#[derive(Debug)]
pub struct MemoryCache {
    entries_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<CacheKey, Entry>,
    /// The keys by when they were used last.
    by_use: BTreeMap<u64, CacheKey>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    bytes: Arc<[u8]>,
    used: u64,
}

impl MemoryCache {
    /// How many entries a cache keeps unless told otherwise.
    pub const ENTRIES_MAX_DEFAULT: usize = 10_000;
    /// How many bytes it keeps unless told otherwise.
    pub const BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;

    /// Keeps so many entries and bytes at most. What is larger than all of it is not kept.
    #[must_use]
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            entries_max,
            bytes_max,
            kept: Mutex::default(),
        }
    }

    /// How many entries it keeps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept().entries.len()
    }

    /// Whether it keeps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(Self::ENTRIES_MAX_DEFAULT, Self::BYTES_MAX_DEFAULT)
    }
}

impl Kept {
    fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes.len();
        }
    }

    fn insert(&mut self, key: CacheKey, bytes: Arc<[u8]>) {
        self.remove(&key);
        self.uses += 1;
        self.bytes += bytes.len();
        self.by_use.insert(self.uses, key.clone());
        let used = self.uses;
        self.entries.insert(key, Entry { bytes, used });
    }

    fn shrink(&mut self, entries_max: usize, bytes_max: usize) {
        while self.entries.len() > entries_max || self.bytes > bytes_max {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return;
            };
            self.remove(&oldest);
        }
    }
}

/// The bytes are left out: they may be secret.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("entries", &self.entries.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl NodeCache for MemoryCache {
    async fn get(&self, key: &CacheKey) -> Result<Option<Arc<[u8]>>, CacheError> {
        let mut kept = self.kept();
        let found = kept.entries.get(key).map(|entry| Arc::clone(&entry.bytes));
        if let Some(bytes) = &found {
            kept.insert(key.clone(), Arc::clone(bytes));
        }
        Ok(found)
    }

    async fn put(&self, key: &CacheKey, bytes: Arc<[u8]>, _: Duration) -> Result<(), CacheError> {
        let mut kept = self.kept();
        if bytes.len() > self.bytes_max {
            kept.remove(key);
            return Ok(());
        }
        kept.insert(key.clone(), bytes);
        kept.shrink(self.entries_max, self.bytes_max);
        Ok(())
    }

    async fn clear(&self, graph: &str, node: &str) -> Result<(), CacheError> {
        let mut kept = self.kept();
        let keys = kept.entries.keys();
        let gone: Vec<_> = keys
            .filter(|key| key.graph == graph && key.node == node)
            .cloned()
            .collect();
        for key in &gone {
            kept.remove(key);
        }
        Ok(())
    }
}
