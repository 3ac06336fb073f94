//! Time limits of one attempt.

use std::{fmt, future::Future, time::Duration};

use crate::node::{Life, Policy};

/// An attempt took longer than its node's policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {limit:?} (it ran for {ran:?}): raise the node's `Policy::{}`, or make it faster", kind.verb())]
#[non_exhaustive]
pub struct NodeTimeout {
    /// Which limit it is.
    pub kind: TimeoutKind,
    /// The limit of each attempt.
    pub limit: Duration,
    /// How long the attempt ran.
    pub ran: Duration,
}

impl NodeTimeout {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.kind {
            TimeoutKind::Run => "node::timeout",
            TimeoutKind::Idle => "node::idle_timeout",
        }
    }
}

/// Which limit of an attempt it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// How long it may take: [`Policy::timeout`].
    Run,
    /// How long it may give no sign of life: [`Policy::idle_timeout`].
    Idle,
}

impl TimeoutKind {
    const fn verb(self) -> &'static str {
        match self {
            Self::Run => "timeout",
            Self::Idle => "idle_timeout",
        }
    }
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "no result within",
            Self::Idle => "no sign of life for",
        })
    }
}

/// Runs an attempt for as long as its policy allows. There is a timer only for what the policy limits.
pub(super) async fn within<T>(
    attempt: impl Future<Output = T>,
    policy: &Policy,
    life: &Life,
) -> Result<T, NodeTimeout> {
    let run = async {
        match policy.run_limit() {
            Some(limit) => {
                tokio::time::sleep(limit).await;
                limit
            }
            None => std::future::pending().await,
        }
    };
    let idle = async {
        match policy.idle_limit() {
            Some(limit) => {
                life.idle(limit).await;
                limit
            }
            None => std::future::pending().await,
        }
    };
    let (kind, limit) = tokio::select! {
        biased;
        ended = attempt => return Ok(ended),
        limit = run => (TimeoutKind::Run, limit),
        limit = idle => (TimeoutKind::Idle, limit),
    };
    Err(NodeTimeout {
        kind,
        limit,
        ran: life.ran(),
    })
}
