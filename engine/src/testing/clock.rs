//! A clock that a test sets.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::clock::Clock;

/// A clock that stands still until it is set, and whose ids are counted: the same test sees the same times and ids. Clones
/// are the same clock.
///
/// ```
/// use std::time::Duration;
/// use stepgraph::{Clock, testing::ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!((clock.now() - before).num_seconds(), 5);
/// assert_ne!(clock.id(), clock.id());
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<(DateTime<Utc>, u64)>>);

impl ManualClock {
    /// A clock at the first second of 1970.
    #[must_use]
    pub fn new() -> Self {
        Self::at(DateTime::UNIX_EPOCH)
    }

    /// A clock at this time.
    #[must_use]
    pub fn at(time: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new((time, 0))))
    }

    /// Sets it.
    pub fn set(&self, time: DateTime<Utc>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = time;
    }

    /// Sets it so much later.
    pub fn advance(&self, by: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += by;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn id(&self) -> Uuid {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1 += 1;
        Uuid::new_v8(u128::from(inner.1).to_be_bytes())
    }
}
