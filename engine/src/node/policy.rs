//! How long and how often a node is tried.

use std::{num::NonZeroU32, time::Duration};

use rand::Rng;

/// How a node is run. The default: one attempt, no time limit but the run's own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[must_use]
pub struct Policy {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Retry,
    pub(crate) concurrency: Option<NonZeroU32>,
}

impl Policy {
    /// One attempt, no time limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends each attempt after this time; the next attempt may follow.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Tries again after retryable errors.
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Lets so many tasks of the node run at once, over all runs of its graph in this process; the others wait in the order
    /// in which they came. A limit shared with other nodes is a [`Limiter`](crate::Limiter).
    pub const fn concurrency(mut self, tasks: NonZeroU32) -> Self {
        self.concurrency = Some(tasks);
        self
    }
}

/// How often something is tried, and how long to wait in between: the wait doubles from `first_delay` up to
/// `delay_max`, and each wait is drawn evenly from its upper half, so that many callers do not come back at once.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Retry {
    attempts: NonZeroU32,
    first_delay: Duration,
    delay_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self::attempts(NonZeroU32::MIN)
    }
}

impl Retry {
    /// So many attempts in all, the first included; waits from 500 ms up to 30 s.
    pub const fn attempts(attempts: NonZeroU32) -> Self {
        Self {
            attempts,
            first_delay: Duration::from_millis(500),
            delay_max: Duration::from_secs(30),
        }
    }

    /// The first wait; each further one doubles.
    pub const fn first_delay(mut self, delay: Duration) -> Self {
        self.first_delay = delay;
        self
    }

    /// The longest wait.
    pub const fn delay_max(mut self, delay: Duration) -> Self {
        self.delay_max = delay;
        self
    }

    /// How long to wait after attempt number `attempt` (from 1) has failed, or `None` when it was the last.
    pub(crate) fn delay_after(&self, attempt: u32, rng: &mut impl Rng) -> Option<Duration> {
        if attempt >= self.attempts.get() {
            return None;
        }
        let doubled = self
            .first_delay
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let whole = doubled.min(self.delay_max);
        Some(whole.mul_f64(rng.random_range(0.5..=1.0)))
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let retry = Retry::attempts(NonZeroU32::new(4).unwrap())
            .first_delay(Duration::from_secs(1))
            .delay_max(Duration::from_secs(3));
        let mut rng = StdRng::seed_from_u64(7);
        for (attempt, whole) in [(1, 1.0), (2, 2.0), (3, 3.0)] {
            let wait = retry.delay_after(attempt, &mut rng).unwrap().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&wait), "attempt {attempt} waits {wait}");
        }
        assert_eq!(retry.delay_after(4, &mut rng), None);
    }
}
