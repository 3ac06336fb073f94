//! Names of threads.

use stepgraph::{TenantId, ThreadId, ThreadKey};

/// A thread of the tenant `acme`.
pub(crate) fn thread(name: &str) -> ThreadKey {
    thread_of("acme", name)
}

/// A thread of any tenant.
pub(crate) fn thread_of(tenant: &str, name: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated(tenant).unwrap(), ThreadId::new(name).unwrap())
}
