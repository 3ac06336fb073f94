//! Records that outlive a run: clients, documents, the chat log, usage, feedback; and the cache.

mod alerts;
mod cache;
mod chat_log;
mod clients;
mod documents;
mod named;
mod tenant_data;
mod usage;

use std::{fmt, sync::Arc};

pub use alerts::{ALERT_THRESHOLD_PERCENT, Alert, AlertLevel, Alerts, Delivery};
pub use cache::{COUNTERS, Cache, CacheState, Counted, MESSAGES};
pub use chat_log::{ChatLog, ChatTurn, Feedback, Feedbacks, Rating, Source};
pub use clients::{Client, ClientSettings, ClientStatus, Clients, Tier};
pub(crate) use clients::{is_key, new_key};
pub(crate) use documents::hex;
pub use documents::{Document, DocumentId, DocumentPage, DocumentStatus, Documents, FileType, Staged, Unfinished};
pub(crate) use named::named_until;
pub use named::{Claim, NamedRequest, NamedRequests, NamedState, RequestName};
pub use tenant_data::{Erased, ExportedRow, TenantData};
pub use usage::{BillingEvent, Cost, UsageBook, UsageDay, UsageHour};
pub(crate) use usage::{overage_amount, overage_event_id};

use super::Threads;

/// All that one store of records keeps, each part behind its trait: what an installation is built over.
#[derive(Clone)]
pub struct Records {
    /// Who may ask, and how they are served.
    pub clients: Arc<dyn Clients>,
    /// Documents and the payloads of their ingestion.
    pub documents: Arc<dyn Documents>,
    /// What was said; each turn is booked with it.
    pub log: Arc<dyn ChatLog>,
    /// What readers thought of answers.
    pub feedbacks: Arc<dyn Feedbacks>,
    /// That tenants come near their limits.
    pub alerts: Arc<dyn Alerts>,
    /// Requests that their callers have named.
    pub named: Arc<dyn NamedRequests>,
    /// What was booked.
    pub usage: Arc<dyn UsageBook>,
    /// What is known of threads.
    pub threads: Arc<dyn Threads>,
    /// All rows of a tenant, to take out or to erase.
    pub data: Arc<dyn TenantData>,
}

impl Records {
    /// A store that keeps all of them.
    pub fn of<R>(store: R) -> Self
    where
        R: Clients + Documents + ChatLog + Feedbacks + Alerts + NamedRequests + UsageBook + Threads + TenantData,
    {
        let store = Arc::new(store);
        Self {
            clients: store.clone(),
            documents: store.clone(),
            log: store.clone(),
            feedbacks: store.clone(),
            alerts: store.clone(),
            named: store.clone(),
            usage: store.clone(),
            threads: store.clone(),
            data: store,
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}
