//! Whether an attempt still counts, and when it last gave a sign of life.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Context, NodeError, RunContext, TaskContext};

/// One attempt of a task that may end before its node does. Attempts that cannot have none, so that they cost nothing.
pub(crate) struct Life {
    over: AtomicBool,
    begun: Instant,
    /// Microseconds after the beginning of the last sign of life.
    heard: AtomicU64,
    /// The attempt of the node that hosts the graph of this one.
    outer: Option<Arc<Life>>,
}

impl Life {
    /// Notes a sign of life, here and in every attempt around.
    #[inline]
    pub(crate) fn beat(&self) {
        let heard = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.heard.fetch_max(heard, Ordering::AcqRel);
        if let Some(outer) = &self.outer {
            outer.beat();
        }
    }

    /// Whether it was given up, or an attempt around it was.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.outer.as_ref().is_some_and(|outer| outer.is_over())
    }

    /// How long it has been going on.
    pub(crate) fn ran(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Resolves when there was no sign of life for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let heard = Duration::from_micros(self.heard.load(Ordering::Acquire));
            let Some(left) = (heard.saturating_add(limit))
                .checked_sub(self.ran())
                .filter(|left| !left.is_zero())
            else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    }
}

/// Gives an attempt up when it is dropped before it was let go.
pub(crate) struct Living(pub(crate) Option<Arc<Life>>);

impl Living {
    /// Begins an attempt inside `outer`.
    pub(crate) fn begin(outer: Option<Arc<Life>>) -> Self {
        Self(Some(Arc::new(Life {
            over: AtomicBool::new(false),
            begun: Instant::now(),
            heard: AtomicU64::new(0),
            outer,
        })))
    }

    /// The attempt has come to its own end: what it started may go on telling.
    pub(crate) fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if let Some(life) = &self.0 {
            life.over.store(true, Ordering::Release);
        }
    }
}

impl RunContext {
    /// Whether the run has taken as long as it may.
    #[inline]
    pub(crate) fn is_timed_out(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// The attempt of the node that hosts this run's graph.
    #[inline]
    pub(crate) fn host_life(&self) -> Option<Arc<Life>> {
        self.outer.as_ref().and_then(|host| host.life.clone())
    }
}

impl TaskContext {
    /// Notes a sign of life.
    pub(crate) fn beat(&self) {
        if let Some(life) = &self.life {
            life.beat();
        }
    }

    /// Whether the attempt was given up: nothing of it counts any more.
    pub(super) fn is_over(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.is_over())
    }

    /// Refuses what would be written down for an attempt or a step that is over.
    pub(crate) fn refuse_late(&self) -> Result<(), NodeError> {
        if self.is_over() || self.run.step.load(Ordering::Acquire) != self.step {
            return Err(NodeError::terminal(
                "the attempt that this belongs to is over: nothing of it is kept any more",
            ));
        }
        Ok(())
    }
}

impl<E: Send + 'static> Context<E> {
    /// Says that the node is still at work: its [`idle_timeout`](crate::Policy::idle_timeout), and that of every node
    /// around it, counts from here.
    ///
    /// ```
    /// # use stepgraph::{Context, NodeError};
    /// # async fn read_part(_: usize) -> Result<(), NodeError> { Ok(()) }
    /// # async fn node(ctx: Context<()>) -> Result<(), NodeError> {
    /// for part in 0..1000 {
    ///     read_part(part).await?;
    ///     ctx.heartbeat();
    /// }
    /// # Ok(()) }
    /// ```
    pub fn heartbeat(&self) {
        self.task.beat();
    }
}
