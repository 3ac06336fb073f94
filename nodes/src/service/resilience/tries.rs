//! Trying again what may pass a moment later.

use std::{collections::hash_map::RandomState, future::Future, hash::BuildHasher, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Breakers, CallLimits};
use crate::service::{ModelName, ServiceError};

/// Wait before the first retry when the provider names none; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(250);

/// One call, tried within its limits.
pub(super) struct Tries<'a> {
    pub(super) service: &'static str,
    pub(super) model: &'a ModelName,
    pub(super) limits: CallLimits,
    pub(super) breakers: &'a Breakers,
    /// When the caller gives up, where it does.
    pub(super) answer_by: Option<Instant>,
}

impl Tries<'_> {
    /// Calls until there is a result, or an error that another try does not help against.
    pub(super) async fn until_answered<T, F, Fut>(&self, mut call: F) -> Result<T, ServiceError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ServiceError>>,
    {
        let began = Instant::now();
        let patience = began + self.limits.first_token_timeout;
        let by = self.answer_by.map_or(patience, |answer_by| answer_by.min(patience));
        let mut retries = 0;
        let mut last = None;
        loop {
            let permit = match self.breakers.enter(self.model) {
                Ok(permit) => permit,
                // What it failed of says more than that it is not asked.
                Err(refusal) => return Err(last.unwrap_or(refusal)),
            };
            let error = match timeout_at(by, call()).await {
                Ok(Ok(answer)) => {
                    permit.answered();
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => ServiceError::Timeout {
                    service: self.service,
                    limit: by - began,
                },
            };
            match &error {
                // A caller in a hurry says nothing about the model.
                ServiceError::Timeout { .. } if by < patience => drop(permit),
                ServiceError::Timeout { .. } | ServiceError::Unavailable { .. } | ServiceError::Corrupt { .. } => {
                    permit.failed(&error);
                }
                _ => permit.answered(),
            }
            let wait = error.retry_after().unwrap_or_else(|| backoff(retries));
            let fits = wait <= self.limits.retry_wait_max && Instant::now() + wait < by;
            if retries >= self.limits.retries_max || !fits || !passes(&error) {
                return Err(error);
            }
            let model = self.model;
            tracing::debug!(service = self.service, %model, retries, ?wait, %error, "the call is tried again");
            last = Some(error);
            sleep(wait).await;
            retries += 1;
        }
    }
}

/// Whether the same call may pass a moment later. A time-out may, but has used up the patience there was.
const fn passes(error: &ServiceError) -> bool {
    matches!(
        error,
        ServiceError::RateLimited { .. } | ServiceError::Unavailable { .. }
    )
}

/// Twice as long each time, less a random part, so that many callers do not come back at once.
fn backoff(retries: u32) -> Duration {
    let whole = BACKOFF.saturating_mul(2_u32.saturating_pow(retries));
    let share = u32::try_from(RandomState::new().hash_one(retries) % 50).unwrap_or_default();
    whole.saturating_mul(100 - share) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_and_never_exceeds_its_step() {
        for retries in 0..5 {
            let step = BACKOFF * 2_u32.pow(retries);
            assert!((step / 2..=step).contains(&backoff(retries)));
        }
    }
}
