//! A clock that goes as tokio's does, which tests can pause.

use chrono::{DateTime, TimeDelta, Utc};
use stepgraph::Clock;
use tokio::time::Instant;
use uuid::Uuid;

/// Shows so much as has passed for tokio since it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioClock(Instant);

impl TokioClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::from_std(self.0.elapsed()).unwrap()
    }

    fn id(&self) -> Uuid {
        Uuid::from_u128(7)
    }
}
