//! The ids that travel through every room: tenant, thread, run, namespace.

mod name;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::name::Name;

/// Longest tenant or thread id accepted, in bytes.
pub const ID_BYTES_MAX: usize = 200;

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: use 1 to {ID_BYTES_MAX} visible ASCII characters without `/`")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

fn checked(kind: &'static str, text: impl Into<String>) -> Result<Name, InvalidId> {
    let text = text.into();
    let legal = (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if legal {
        Ok(Name::new(&text))
    } else {
        Err(InvalidId { kind, text })
    }
}

/// Whose data this is. Made only where a caller has proved who they are, and never read from a request body:
/// the type has no `Default`, no `From` and no `Deserialize`.
///
/// ```
/// # use stepgraph::TenantId;
/// let tenant = TenantId::authenticated("acme")?;
/// assert_eq!(tenant.as_str(), "acme");
/// # Ok::<(), stepgraph::InvalidId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Name);

impl TenantId {
    /// Names a tenant whose identity has been established: by a key, a shared secret, or the operator's own command.
    pub fn authenticated(id: impl Into<String>) -> Result<Self, InvalidId> {
        checked("tenant id", id).map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// One lasting line of state: a chat session, a document's ingestion.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadId(Name);

impl ThreadId {
    /// A thread named by its owner. Always used together with a [`TenantId`].
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        checked("thread id", id).map(Self)
    }

    /// A thread with a fresh `UUIDv7` for a name.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a fresh name is drawn outside of any run")]
    pub fn random() -> Self {
        Self(Name::new(&Uuid::now_v7().to_string()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// One run of a graph on a thread, named by a `UUIDv7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(Uuid);

impl RunId {
    /// A fresh id.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a fresh id is drawn outside of any run")]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for RunId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

/// Where in a nest of graphs something happens: empty for the root, `host/host` below it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Namespace(Option<Arc<str>>);

impl Namespace {
    /// The root graph of a run.
    pub const ROOT: Self = Self(None);

    /// The namespace of a graph inside this one.
    #[must_use]
    pub fn child(&self, host: &str) -> Self {
        Self(Some(match &self.0 {
            None => host.into(),
            Some(path) => format!("{path}/{host}").into(),
        }))
    }

    /// A namespace as a store has written it down.
    #[must_use]
    pub fn from_stored(path: &str) -> Self {
        Self((!path.is_empty()).then(|| path.into()))
    }

    /// The path as text, empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// Whether this is the root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.0.is_none()
    }
}

/// The full name of a thread: no store call is made without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadKey {
    /// Whose thread it is.
    pub tenant: TenantId,
    /// Which of the tenant's threads.
    pub thread: ThreadId,
    /// Which graph of the nest.
    pub namespace: Namespace,
}

impl ThreadKey {
    /// The root graph of a tenant's thread.
    #[must_use]
    pub const fn new(tenant: TenantId, thread: ThreadId) -> Self {
        Self {
            tenant,
            thread,
            namespace: Namespace::ROOT,
        }
    }

    /// The same thread, one graph deeper.
    #[must_use]
    pub fn child(&self, host: &str) -> Self {
        Self {
            namespace: self.namespace.child(host),
            ..self.clone()
        }
    }
}

macro_rules! print_as_text {
    ($($id:ident),*) => { $(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}({:?})", stringify!($id), self.as_str()) }
        }
    )* };
}
print_as_text!(TenantId, ThreadId, Namespace);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ThreadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.thread)?;
        if self.namespace.is_root() {
            Ok(())
        } else {
            write!(f, "/{}", self.namespace)
        }
    }
}
