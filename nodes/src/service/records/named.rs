//! Requests that their callers have named, so that each is answered once.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use stepgraph::{RunId, TenantId};

use crate::service::ServiceError;

/// How long a name stands for its request.
const NAMED_KEPT: TimeDelta = TimeDelta::hours(24);

/// What a caller knows a request by, inside its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestName {
    /// The chat session, as the caller sent it.
    pub session: String,
    /// The caller's own name for it.
    pub name: String,
}

/// How a named request stands.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedState {
    /// A process has taken it, and has not counted it yet.
    Claimed,
    /// It was counted, and its run has begun.
    Begun,
    /// Its run has failed, and may be gone on with.
    Failed,
    /// This is the answer.
    Answered(Value),
}

/// A request that was named before.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedRequest {
    /// The run that answers it.
    pub run: RunId,
    /// How it stands.
    pub state: NamedState,
    /// When a process has last taken it.
    pub taken_at: DateTime<Utc>,
    /// Whether that process is known to be gone.
    pub is_left: bool,
}

/// Whose a named request is now.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// The caller's: nobody has sent it within the last 24 hours.
    Ours,
    /// It was sent before.
    Known(NamedRequest),
}

/// Keeps the names that callers give to requests for 24 hours, with what was answered.
#[async_trait]
pub trait NamedRequests: Send + Sync + 'static {
    /// Takes a name for a run, unless it is taken: of all who ask at once, one has it.
    async fn claim(&self, tenant: &TenantId, request: &RequestName, run: RunId) -> Result<Claim, ServiceError>;

    /// Takes a request from the process that has it, and says whether it still stood as `found`. A failed one is begun then.
    async fn take_over(
        &self,
        tenant: &TenantId,
        request: &RequestName,
        found: &NamedRequest,
    ) -> Result<bool, ServiceError>;

    /// Notes how the request of this run stands. An answer stays.
    async fn note(
        &self,
        tenant: &TenantId,
        request: &RequestName,
        run: RunId,
        state: &NamedState,
    ) -> Result<(), ServiceError>;

    /// Forgets the tenant's requests that are older than 24 hours, and says how many there were.
    async fn forget_old(&self, tenant: &TenantId) -> Result<u64, ServiceError>;

    /// Gives the name of this run free, unless it is answered.
    async fn release(&self, tenant: &TenantId, request: &RequestName, run: RunId) -> Result<(), ServiceError>;
}

impl NamedState {
    /// As it is stored: a word, and the answer.
    pub(crate) const fn parts(&self) -> (&'static str, Option<&Value>) {
        match self {
            Self::Claimed => ("claimed", None),
            Self::Begun => ("begun", None),
            Self::Failed => ("failed", None),
            Self::Answered(answer) => ("answered", Some(answer)),
        }
    }

    /// What its parts mean; `None` if they mean nothing.
    pub(crate) fn of(word: &str, answer: Option<Value>) -> Option<Self> {
        match (word, answer) {
            ("claimed", _) => Some(Self::Claimed),
            ("begun", _) => Some(Self::Begun),
            ("failed", _) => Some(Self::Failed),
            ("answered", Some(answer)) => Some(Self::Answered(answer)),
            _ => None,
        }
    }
}

/// When a name that is given now stands for nothing any more.
pub(crate) fn named_until(now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_add_signed(NAMED_KEPT).unwrap_or(now)
}
