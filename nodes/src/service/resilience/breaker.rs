//! A circuit breaker for each model: closed, open for a while, then half open for one probe.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::CallLimits;
use crate::service::{ModelName, ServiceError};

/// Most models whose failures are remembered; names come from tenants' records.
const MODELS_MAX: usize = 1024;

/// The circuits of one provider. Clones share them.
#[derive(Debug, Clone)]
pub struct Breakers {
    service: &'static str,
    limits: CallLimits,
    /// Those that have failed lately; a circuit that is not here is closed.
    circuits: Arc<Mutex<HashMap<ModelName, Circuit>>>,
}

#[derive(Debug, Clone, Copy)]
enum Circuit {
    /// So many failures in a row.
    Closed(u32),
    /// Not asked before this time.
    Open(Instant),
    /// One call is under way to see whether it works again.
    HalfOpen,
}

/// A call that is allowed. Dropped without a result it says nothing, and frees the place of a probe.
#[must_use]
#[derive(Debug)]
pub(super) struct Permit {
    breakers: Breakers,
    model: ModelName,
    is_probe: bool,
}

impl Breakers {
    /// All closed.
    #[must_use]
    pub fn new(service: &'static str, limits: CallLimits) -> Self {
        Self {
            service,
            limits,
            circuits: Arc::default(),
        }
    }

    /// The models that are not asked at the moment, in the order of their names.
    #[must_use]
    pub fn held_back(&self) -> Vec<ModelName> {
        let circuits = self.lock();
        let open = circuits
            .iter()
            .filter(|(_, circuit)| !matches!(circuit, Circuit::Closed(_)));
        let mut open: Vec<_> = open.map(|(model, _)| model.clone()).collect();
        open.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        open
    }

    pub(super) const fn service(&self) -> &'static str {
        self.service
    }

    pub(super) fn enter(&self, model: &ModelName) -> Result<Permit, ServiceError> {
        let mut circuits = self.lock();
        let is_probe = match circuits.get_mut(model) {
            None | Some(Circuit::Closed(_)) => false,
            Some(Circuit::HalfOpen) => return Err(self.refusal(model)),
            Some(Circuit::Open(until)) if Instant::now() < *until => return Err(self.refusal(model)),
            Some(circuit @ Circuit::Open(_)) => {
                *circuit = Circuit::HalfOpen;
                true
            }
        };
        Ok(Permit {
            breakers: self.clone(),
            model: model.clone(),
            is_probe,
        })
    }

    fn refusal(&self, model: &ModelName) -> ServiceError {
        ServiceError::Unavailable {
            service: self.service,
            message: format!(
                "`{model}` has failed {} times in a row and is not asked for {:?}: see the log for why",
                self.limits.failures_max, self.limits.open_for
            ),
            source: None,
        }
    }

    fn open(&self) -> Circuit {
        Circuit::Open(Instant::now() + self.limits.open_for)
    }

    // Nothing panics while it is held, and what is in it is whole at every moment.
    fn lock(&self) -> MutexGuard<'_, HashMap<ModelName, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The model answers, be it to refuse.
    pub(super) fn answered(mut self) {
        let was_open = self.breakers.lock().remove(&self.model);
        self.is_probe = false;
        if matches!(was_open, Some(Circuit::HalfOpen | Circuit::Open(_))) {
            tracing::info!(service = self.breakers.service, model = %self.model, "the model answers again");
        }
    }

    /// It does not.
    pub(super) fn failed(mut self, error: &ServiceError) {
        let mut circuits = self.breakers.lock();
        let failures = match circuits.get(&self.model) {
            None if circuits.len() >= MODELS_MAX => {
                circuits.retain(|_, circuit| !matches!(circuit, Circuit::Closed(_)));
                1
            }
            None => 1,
            Some(Circuit::Closed(failures)) => failures.saturating_add(1),
            Some(Circuit::HalfOpen) if self.is_probe => self.breakers.limits.failures_max,
            // A call from before; what came after it counts.
            Some(Circuit::HalfOpen | Circuit::Open(_)) => return,
        };
        let opens = failures >= self.breakers.limits.failures_max;
        let circuit = if opens {
            self.breakers.open()
        } else {
            Circuit::Closed(failures)
        };
        if circuits.len() < MODELS_MAX || circuits.contains_key(&self.model) {
            circuits.insert(self.model.clone(), circuit);
        }
        drop(circuits);
        self.is_probe = false;
        if opens {
            let open_for = self.breakers.limits.open_for;
            tracing::warn!(service = self.breakers.service, model = %self.model, failures, ?open_for, %error, "the model is not asked for a while");
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe {
            let mut circuits = self.breakers.lock();
            if let Some(circuit @ Circuit::HalfOpen) = circuits.get_mut(&self.model) {
                // The next call probes.
                *circuit = Circuit::Open(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn breakers() -> (Breakers, ModelName) {
        let limits = CallLimits {
            failures_max: 2,
            open_for: Duration::from_secs(10),
            ..CallLimits::default()
        };
        (Breakers::new("test", limits), ModelName::new("m"))
    }

    fn error() -> ServiceError {
        ServiceError::Timeout {
            service: "test",
            limit: Duration::from_secs(1),
        }
    }

    fn fail(breakers: &Breakers, model: &ModelName) {
        breakers.enter(model).unwrap().failed(&error());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_probe_closes_it() {
        let (breakers, model) = breakers();
        fail(&breakers, &model);
        breakers.enter(&model).unwrap().answered();
        fail(&breakers, &model);
        assert!(breakers.held_back().is_empty(), "they were not in a row");
        fail(&breakers, &model);

        let refusal = breakers.enter(&model).unwrap_err();
        assert!(
            refusal.is_retryable() && refusal.to_string().contains("`m`"),
            "{refusal}"
        );
        assert_eq!(breakers.held_back(), std::slice::from_ref(&model));
        breakers.enter(&ModelName::new("other")).unwrap().answered();

        advance(Duration::from_secs(10)).await;
        let probe = breakers.enter(&model).unwrap();
        assert!(breakers.enter(&model).is_err(), "one probe at a time");
        probe.answered();
        assert!(breakers.held_back().is_empty());
        breakers.enter(&model).unwrap().answered();
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_opens_it_anew() {
        let (breakers, model) = breakers();
        fail(&breakers, &model);
        fail(&breakers, &model);
        advance(Duration::from_secs(10)).await;

        fail(&breakers, &model);

        advance(Duration::from_secs(9)).await;
        assert!(breakers.enter(&model).is_err());
        advance(Duration::from_secs(1)).await;
        breakers.enter(&model).unwrap().answered();
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
        let (breakers, model) = breakers();
        fail(&breakers, &model);
        fail(&breakers, &model);
        advance(Duration::from_secs(10)).await;

        drop(breakers.enter(&model).unwrap());

        breakers.enter(&model).unwrap().answered();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_from_before_changes_nothing() {
        let (breakers, model) = breakers();
        let earlier = breakers.enter(&model).unwrap();
        fail(&breakers, &model);
        fail(&breakers, &model);
        advance(Duration::from_secs(9)).await;

        earlier.failed(&error());

        advance(Duration::from_secs(1)).await;
        breakers.enter(&model).unwrap().answered();
    }
}
