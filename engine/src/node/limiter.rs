//! Limiters: how many tasks may run at once.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Semaphore;

/// Lets so many tasks run at once, over all runs of all graphs that are given it: what a service outside can bear. Who
/// comes first is let in first. Clones are the same limiter.
///
/// With a key, drawn from the state or the tenant by [`limit_by`](crate::GraphBuilder::limit_by), it lets in so many for
/// each key. A key that nobody uses is forgotten.
///
/// ```
/// use std::num::NonZeroU32;
/// use stepgraph::Limiter;
///
/// let openai = Limiter::new("openai", const { NonZeroU32::new(8).unwrap() });
/// assert_eq!(openai.name(), "openai");
/// ```
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    name: Cow<'static, str>,
    /// Every task takes its permits in the order of these, so that no two can wait for each other.
    number: u64,
    permits: NonZeroU32,
    keys_max: usize,
    queues: Mutex<HashMap<Key, Arc<Semaphore>>>,
}

/// `None` where a limiter is used without keys.
type Key = Option<Arc<str>>;

/// Numbers limiters.
static LIMITERS: AtomicU64 = AtomicU64::new(0);

impl Limiter {
    /// How many keys may be in use at once unless told otherwise.
    pub const KEYS_MAX_DEFAULT: usize = 10_000;

    /// Lets in so many at once, for each key if it is used with keys. The name stands in errors.
    pub fn new(name: impl Into<Cow<'static, str>>, permits: NonZeroU32) -> Self {
        Self::with_keys(name, permits, Self::KEYS_MAX_DEFAULT)
    }

    /// The same with another bound on the keys in use at once. A task with one key more fails with [`LimiterFull`] and may
    /// be tried again.
    pub fn with_keys(name: impl Into<Cow<'static, str>>, permits: NonZeroU32, keys_max: usize) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            number: LIMITERS.fetch_add(1, Ordering::Relaxed),
            permits,
            keys_max,
            queues: Mutex::default(),
        }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many keys are in use: those whose tasks run or wait. One use without keys counts as a key.
    #[must_use]
    pub fn keys_in_use(&self) -> usize {
        self.queues().len()
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// A place in the queue of a key. It is left by dropping it, whether it came to a permit or not.
    pub(crate) fn seat(&self, key: Option<&str>) -> Result<Seat, LimiterFull> {
        let key: Key = key.map(Arc::from);
        let mut queues = self.queues();
        let queue = match queues.get(&key) {
            Some(queue) => Arc::clone(queue),
            None if queues.len() >= self.0.keys_max => {
                return Err(LimiterFull {
                    limiter: self.name().to_owned(),
                    keys_max: self.0.keys_max,
                });
            }
            None => {
                let permits = usize::try_from(self.0.permits.get()).unwrap_or(usize::MAX);
                let queue = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
                queues.insert(key.clone(), Arc::clone(&queue));
                queue
            }
        };
        drop(queues);
        Ok(Seat {
            limiter: self.clone(),
            key,
            queue,
            taken: false,
        })
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Key, Arc<Semaphore>>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("name", &self.0.name)
            .field("permits", &self.0.permits)
            .finish_non_exhaustive()
    }
}

/// A place in a limiter's queue, and the permit once it is taken.
pub(crate) struct Seat {
    limiter: Limiter,
    key: Key,
    queue: Arc<Semaphore>,
    taken: bool,
}

impl Seat {
    /// Waits for a permit.
    pub(crate) async fn take(&mut self) {
        // The queue is never closed.
        if let Ok(permit) = self.queue.acquire().await {
            permit.forget();
            self.taken = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.taken {
            self.queue.add_permits(1);
        }
        let mut queues = self.limiter.queues();
        // Seats are made and left under this lock: the table and this one are the last to know the queue.
        if Arc::strong_count(&self.queue) == 2 {
            queues.remove(&self.key);
        }
    }
}

/// A limiter has as many keys in use as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limiter `{limiter}` has {keys_max} keys in use: raise its bound by `Limiter::with_keys`, or draw fewer keys")]
pub struct LimiterFull {
    /// The limiter.
    pub limiter: String,
    /// Its bound.
    pub keys_max: usize,
}

/// A node inside another waits for a permit that the other holds, and would wait for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node around this one holds a permit of limiter `{limiter}` while this one asks for it: limit one of them")]
pub struct PermitHeld {
    /// The limiter.
    pub limiter: String,
}

/// The permits of the nodes around a task, the innermost first.
pub(crate) struct Held {
    limiter: u64,
    key: Key,
    outer: Option<Arc<Held>>,
}

impl Held {
    /// The same with one more.
    pub(crate) fn with(outer: Option<Arc<Self>>, seat: &Seat) -> Arc<Self> {
        Arc::new(Self {
            limiter: seat.limiter.number(),
            key: seat.key.clone(),
            outer,
        })
    }

    /// Whether a permit of this key is among them.
    pub(crate) fn has(held: Option<&Arc<Self>>, limiter: &Limiter, key: Option<&str>) -> bool {
        let mut next = held;
        while let Some(held) = next {
            if held.limiter == limiter.number() && held.key.as_deref() == key {
                return true;
            }
            next = held.outer.as_ref();
        }
        false
    }
}
