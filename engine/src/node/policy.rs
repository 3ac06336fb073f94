//! How long and how often a node is tried.

use std::{num::NonZeroU32, time::Duration};

use rand::Rng;

use super::NodeError;

/// How a node is run. What is left open is as the graph's defaults say, and without those: one attempt, no time limit
/// but the run's own.
///
/// ```
/// use std::{num::NonZeroU32, time::Duration};
/// use stepgraph::{Policy, Retry};
///
/// let policy = Policy::new()
///     .timeout(Duration::from_mins(1))
///     .idle_timeout(Duration::from_secs(10))
///     .retry(Retry::attempts(NonZeroU32::MIN.saturating_add(2)));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[must_use]
pub struct Policy {
    pub(crate) concurrency: Option<NonZeroU32>,
    timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    retry: Option<Retry>,
}

impl Policy {
    /// Everything left open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends each attempt after this time with a [`NodeTimeout`](crate::NodeTimeout), which another attempt may mend.
    /// `Duration::MAX` is no limit, whatever the graph's defaults say.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Ends each attempt that gives no sign of life for this time: no [`heartbeat`](crate::Context::heartbeat), no event,
    /// no recorded effect, nothing in a graph inside it. `Duration::MAX` is no limit.
    pub const fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = Some(limit);
        self
    }

    /// Tries again after retryable errors.
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Lets so many tasks of the node run at once, over all runs of its graph in this process; the others wait in the order
    /// in which they came. A limit shared with other nodes is a [`Limiter`](crate::Limiter).
    pub const fn concurrency(mut self, tasks: NonZeroU32) -> Self {
        self.concurrency = Some(tasks);
        self
    }

    /// What this one leaves open as `defaults` say.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            timeout: self.timeout.or(defaults.timeout),
            idle_timeout: self.idle_timeout.or(defaults.idle_timeout),
            retry: self.retry.or(defaults.retry),
            concurrency: self.concurrency.or(defaults.concurrency),
        }
    }

    /// The longest that an attempt may take.
    pub(crate) fn run_limit(&self) -> Option<Duration> {
        self.timeout.filter(|limit| *limit != Duration::MAX)
    }

    /// The longest that an attempt may give no sign of life.
    pub(crate) fn idle_limit(&self) -> Option<Duration> {
        self.idle_timeout.filter(|limit| *limit != Duration::MAX)
    }

    /// Whether another attempt may follow the first.
    pub(crate) fn retries(&self) -> bool {
        self.retry.is_some_and(|retry| retry.attempts > NonZeroU32::MIN)
    }

    /// Whether an attempt may end before its node does.
    pub(crate) fn is_limited(&self) -> bool {
        self.run_limit().is_some() || self.idle_limit().is_some()
    }

    /// How long to wait after attempt number `attempt` has failed, or `None` when no other follows.
    pub(crate) fn delay_after(&self, attempt: u32, error: &NodeError, rng: impl FnOnce() -> f64) -> Option<Duration> {
        self.retry.and_then(|retry| retry.delay_after(attempt, error, rng))
    }

    /// The longest that all attempts may take with the waits between them; without a limit for an attempt, the waits
    /// alone.
    pub(crate) fn worst_case(&self) -> Option<Duration> {
        let retry = self.retry.filter(|_| self.retries())?;
        let attempts = self
            .run_limit()
            .unwrap_or_default()
            .saturating_mul(retry.attempts.get());
        Some(attempts.saturating_add(retry.delays_max()))
    }
}

/// How often something is tried, and how long to wait in between: the wait doubles from `first_delay` up to
/// `delay_max`, and each wait is drawn evenly from its upper half, so that many callers do not come back at once. An error
/// that says itself when to come back ([`NodeError::retry_after`]) is waited for at least that long.
///
/// How many attempts of a task have failed is kept with its thread: after a crash the count goes on, and a wait that was
/// under way is waited out. After the last attempt has failed, resuming the thread begins with a fresh count.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Retry {
    attempts: NonZeroU32,
    first_delay: Duration,
    delay_max: Duration,
    only_if: Option<Classify>,
}

/// Says of an error whether it is worth another attempt.
#[derive(Debug, Clone, Copy)]
struct Classify(fn(&NodeError) -> bool);

impl PartialEq for Classify {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

/// The longest wait that an error may ask for; one that asks for more is not tried again.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

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
            only_if: None,
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

    /// Of the retryable errors, tries again only after those for which `worth` holds.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    /// use stepgraph::{NodeTimeout, Retry};
    ///
    /// let retry = Retry::attempts(NonZeroU32::MIN.saturating_add(4)).only_if(|error| error.find::<NodeTimeout>().is_some());
    /// # let _ = retry;
    /// ```
    pub const fn only_if(mut self, worth: fn(&NodeError) -> bool) -> Self {
        self.only_if = Some(Classify(worth));
        self
    }

    /// How long to wait after attempt number `attempt` (from 1) has failed, or `None` when no other follows. `share` is
    /// drawn from 0 to 1.
    pub(crate) fn delay_after(&self, attempt: u32, error: &NodeError, share: impl FnOnce() -> f64) -> Option<Duration> {
        let worth = error.is_retryable() && self.only_if.is_none_or(|Classify(worth)| worth(error));
        let asked = error.asks_to_wait().unwrap_or_default();
        if attempt >= self.attempts.get() || !worth || asked > RETRY_AFTER_MAX {
            return None;
        }
        let own = self
            .whole_delay(attempt)
            .mul_f64(f64::midpoint(1.0, share().clamp(0.0, 1.0)));
        Some(own.max(asked))
    }

    fn whole_delay(&self, attempt: u32) -> Duration {
        let doubled = self
            .first_delay
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        doubled.min(self.delay_max)
    }

    /// All waits at their longest.
    fn delays_max(&self) -> Duration {
        let mut sum = Duration::ZERO;
        let waits = self.attempts.get() - 1;
        for attempt in 1..=waits {
            let delay = self.whole_delay(attempt);
            // From here on every wait is the same: they double until then, so this is reached soon.
            if delay == self.whole_delay(attempt + 1) {
                return sum.saturating_add(delay.saturating_mul(waits - attempt + 1));
            }
            sum = sum.saturating_add(delay);
        }
        sum
    }
}

/// A share from 0 to 1.
pub(crate) fn share(rng: &mut impl Rng) -> f64 {
    rng.random_range(0.0..=1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(attempts: u32) -> Retry {
        Retry::attempts(NonZeroU32::new(attempts).unwrap())
            .first_delay(Duration::from_secs(1))
            .delay_max(Duration::from_secs(3))
    }

    fn failed() -> NodeError {
        NodeError::retryable("broken")
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_last_attempt() {
        for (attempt, whole) in [(1, 1.0), (2, 2.0), (3, 3.0)] {
            for (share, of) in [(0.0, 0.5), (1.0, 1.0)] {
                let wait = retry(4).delay_after(attempt, &failed(), || share).unwrap();
                assert_eq!(wait, Duration::from_secs_f64(whole * of), "attempt {attempt}");
            }
        }
        assert_eq!(retry(4).delay_after(4, &failed(), || 0.5), None);
    }

    #[test]
    fn an_error_that_says_when_to_come_back_is_waited_for_up_to_the_limit() {
        let wait = |asked| retry(2).delay_after(1, &failed().retry_after(asked), || 1.0);
        assert_eq!(wait(Duration::from_millis(1)), Some(Duration::from_secs(1)));
        assert_eq!(wait(Duration::from_mins(1)), Some(Duration::from_mins(1)));
        assert_eq!(wait(RETRY_AFTER_MAX + Duration::from_secs(1)), None);
    }

    #[test]
    fn the_worst_case_counts_every_attempt_and_every_wait() {
        let policy = Policy::new().timeout(Duration::from_secs(10));
        assert_eq!(policy.worst_case(), None, "one attempt has no worst case of its own");
        // Four attempts, and waits of 1, 2 and 3 seconds.
        assert_eq!(policy.retry(retry(4)).worst_case(), Some(Duration::from_secs(46)));
        assert_eq!(Policy::new().retry(retry(4)).worst_case(), Some(Duration::from_secs(6)));
        let endless = retry(u32::MAX).first_delay(Duration::ZERO);
        assert_eq!(Policy::new().retry(endless).worst_case(), Some(Duration::ZERO));
    }

    #[test]
    fn what_a_policy_leaves_open_is_as_the_defaults_say() {
        let defaults = Policy::new().timeout(Duration::from_secs(1)).retry(retry(2));
        let own = Policy::new()
            .timeout(Duration::MAX)
            .idle_timeout(Duration::from_secs(3));
        let both = own.or(defaults);
        assert_eq!(
            (both.run_limit(), both.idle_limit()),
            (None, Some(Duration::from_secs(3)))
        );
        assert!(both.retries());
    }
}
