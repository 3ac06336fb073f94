//! Where time and ids come from.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Gives the time and fresh ids. The engine asks nothing else for either, so that a test can hand it recorded ones.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> DateTime<Utc>;

    /// A fresh `UUIDv7`.
    fn id(&self) -> Uuid;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that makes random ids")]
    fn id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
