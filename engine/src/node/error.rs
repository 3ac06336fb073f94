//! Why a node gave no output.

use std::{borrow::Cow, error::Error, fmt, time::Duration};

use crate::graph::Leave;

/// Why a node gave no output. Takes any error by `?` and is then worth a retry; [`Terminal::terminal`] marks the hopeless.
///
/// It is no `std::error::Error` itself, so that `?` can take every type that is one.
pub struct NodeError {
    kind: NodeErrorKind,
    source: Box<dyn Error + Send + Sync>,
    code: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeErrorKind {
    Retryable,
    Terminal,
    Asked,
    /// A graph inside the node has come to a breakpoint.
    Paused,
    /// A graph inside the node was ended in favour of the node's own; the source is what it left.
    Left,
    /// A graph inside the node was drained.
    Drained,
    /// A graph inside the node has spent what was left of the run's budget; the source is its error.
    OverBudget,
    /// The node ends its own graph; the source is what it leaves.
    Leaves,
    /// The run was cancelled under the node.
    Cancelled,
    /// The run has taken as long as it may.
    TimeLimit,
}

impl NodeError {
    fn of(kind: NodeErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: source.into(),
            code: None,
            retry_after: None,
        }
    }

    /// An error that no retry can mend.
    pub fn terminal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(NodeErrorKind::Terminal, error)
    }

    /// An error that a retry may mend.
    pub fn retryable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(NodeErrorKind::Retryable, error)
    }

    pub(crate) fn asked() -> Self {
        Self::of(NodeErrorKind::Asked, "the node waits for an answer")
    }

    pub(crate) fn paused() -> Self {
        Self::of(
            NodeErrorKind::Paused,
            "a graph inside the node has come to a breakpoint",
        )
    }

    pub(crate) fn drained() -> Self {
        Self::of(NodeErrorKind::Drained, "a graph inside the node was drained")
    }

    pub(crate) fn over_budget(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(NodeErrorKind::OverBudget, error)
    }

    pub(crate) fn left(leave: Leave) -> Self {
        Self::of(NodeErrorKind::Left, LeaveError(leave))
    }

    pub(crate) fn leaves(leave: Leave) -> Self {
        Self::of(NodeErrorKind::Leaves, LeaveError(leave))
    }

    /// What a graph inside has left, or the error as it was.
    pub(crate) fn into_left(self) -> Result<Leave, Self> {
        let Self { kind, source, .. } = self;
        source
            .downcast::<LeaveError>()
            .map(|left| left.0)
            .map_err(|source| Self::of(kind, source))
    }

    pub(crate) fn cancelled() -> Self {
        Self::of(NodeErrorKind::Cancelled, "the run was cancelled")
    }

    pub(crate) fn time_limit(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(NodeErrorKind::TimeLimit, error)
    }

    /// Whether a retry may mend it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == NodeErrorKind::Retryable
    }

    /// For layers: a stand-in for an error that is how a node stops, and none that it failed with.
    pub(crate) fn shadow(&self) -> Option<Self> {
        match self.kind {
            NodeErrorKind::Retryable | NodeErrorKind::Terminal => None,
            kind @ (NodeErrorKind::Asked
            | NodeErrorKind::Paused
            | NodeErrorKind::Left
            | NodeErrorKind::Drained
            | NodeErrorKind::OverBudget
            | NodeErrorKind::Leaves
            | NodeErrorKind::Cancelled
            | NodeErrorKind::TimeLimit) => Some(Self::of(kind, self.source.to_string())),
        }
    }

    /// In a word, for traces.
    pub(crate) const fn outcome(&self) -> &'static str {
        match self.kind {
            NodeErrorKind::Retryable => "retryable",
            NodeErrorKind::Terminal => "failed",
            NodeErrorKind::Asked => "asked",
            NodeErrorKind::Paused
            | NodeErrorKind::Left
            | NodeErrorKind::Drained
            | NodeErrorKind::OverBudget
            | NodeErrorKind::Leaves
            | NodeErrorKind::Cancelled
            | NodeErrorKind::TimeLimit => "stopped",
        }
    }

    /// Gives it a stable code, for whoever reads the failure later.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Its code, if it was given one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Says when to come back: the next attempt waits at least so long, whatever the policy's own wait. An error that asks
    /// for more than a day is not tried again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use stepgraph::NodeError;
    /// # fn busy() -> NodeError {
    /// NodeError::retryable("the service is busy").retry_after(Duration::from_secs(20))
    /// # }
    /// ```
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) const fn asks_to_wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The error of type `E` among this one and its sources.
    #[must_use]
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn Error + 'static)> = Some(self.error());
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// The error itself, borrowed.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }

    pub(crate) const fn kind(&self) -> NodeErrorKind {
        self.kind
    }

    pub(crate) fn source(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.source.as_ref()
    }

    /// The error itself.
    #[must_use]
    pub fn into_source(self) -> Box<dyn Error + Send + Sync> {
        self.source
    }
}

/// What a graph inside has left, on its way to the host.
#[derive(Debug, thiserror::Error)]
#[error("a node left its graph for the one around it, whose node takes nothing from it")]
struct LeaveError(Leave);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for NodeError {
    fn from(error: E) -> Self {
        Self::retryable(error)
    }
}

impl fmt::Debug for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .field("code", &self.code)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// Marks the errors of a result as beyond retry.
pub trait Terminal<T> {
    /// Turns an error into a terminal [`NodeError`].
    fn terminal(self) -> Result<T, NodeError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Terminal<T> for Result<T, E> {
    fn terminal(self) -> Result<T, NodeError> {
        self.map_err(NodeError::terminal)
    }
}
