//! What a cancellation waits for, and how a task is cancelled alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::context::{RunContext, TaskContext};

/// What a cancellation waits for: effects of class other, and graphs inside that keep what they have.
#[derive(Default)]
pub(crate) struct Flights {
    in_flight: AtomicUsize,
    landed: Notify,
}

/// How one task of a step is cancelled while the others go on.
pub(crate) struct Cut {
    pub(crate) token: CancellationToken,
    pub(super) flights: Flights,
}

impl Cut {
    /// For a task of a run or step; what cancels that reaches it as well.
    pub(crate) fn under(token: Option<&CancellationToken>) -> Self {
        Self {
            token: token.map(CancellationToken::child_token).unwrap_or_default(),
            flights: Flights::default(),
        }
    }
}

impl Flights {
    /// Waits until everything has landed, or for so long at most.
    pub(super) async fn landed(&self) {
        /// How long a cancellation waits for outside effects of class other that have begun.
        const EFFECTS_WAIT_MAX: Duration = Duration::from_secs(10);
        let ended = async {
            loop {
                let next = self.landed.notified();
                if self.in_flight.load(Ordering::Acquire) == 0 {
                    return;
                }
                next.await;
            }
        };
        // Past the limit the effect's intent stays open in the journal, and a resume asks what became of it.
        let _waited_long_enough = tokio::time::timeout(EFFECTS_WAIT_MAX, ended).await;
    }
}

/// Lets a cancellation wait while it lives.
pub(crate) struct InFlight(Arc<RunContext>, Option<Arc<Cut>>);

impl InFlight {
    pub(crate) fn enter(task: &TaskContext) -> Self {
        let entered = Self(Arc::clone(&task.run), task.cut.clone());
        for flights in entered.flights() {
            flights.in_flight.fetch_add(1, Ordering::AcqRel);
        }
        entered
    }

    fn flights(&self) -> impl Iterator<Item = &Flights> {
        std::iter::once(&self.0.flights).chain(self.1.as_ref().map(|cut| &cut.flights))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        for flights in self.flights() {
            flights.in_flight.fetch_sub(1, Ordering::AcqRel);
            flights.landed.notify_waiters();
        }
    }
}
