//! The node cache: what a node gave for the same question before.

mod memory;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use uuid::Uuid;

pub use self::memory::MemoryCache;
use crate::id::TenantId;

/// What an entry is found by. Tenant, graph and node stand in it, and so does the graph's version: an entry of one is never
/// found by another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CacheKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the graph.
    pub graph: Cow<'static, str>,
    /// Name of the node.
    pub node: Cow<'static, str>,
    /// Of the graph's fingerprint and of what the node reads.
    pub hash: Uuid,
}

/// Keeps what nodes gave, for nodes that [`GraphBuilder::cache`](crate::GraphBuilder::cache) names. A cache may lose
/// everything at any time: what it does not find, or fails to find, is run.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use stepgraph::{CacheError, CacheKey, NodeCache};
///
/// /// Keeps nothing.
/// struct Nothing;
///
/// #[stepgraph::async_trait]
/// impl NodeCache for Nothing {
///     async fn get(&self, _: &CacheKey) -> Result<Option<Arc<[u8]>>, CacheError> {
///         Ok(None)
///     }
///     async fn put(&self, _: &CacheKey, _: Arc<[u8]>, _: Duration) -> Result<(), CacheError> {
///         Ok(())
///     }
///     async fn clear(&self, _graph: &str, _node: &str) -> Result<(), CacheError> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait NodeCache: Send + Sync + 'static {
    /// What was put under a key last.
    async fn get(&self, key: &CacheKey) -> Result<Option<Arc<[u8]>>, CacheError>;

    /// Keeps bytes under a key. They are of no use after `ttl`: the engine does not take what is older, whether the cache
    /// still has it or not.
    async fn put(&self, key: &CacheKey, bytes: Arc<[u8]>, ttl: Duration) -> Result<(), CacheError>;

    /// Forgets what a node of a graph gave, for all tenants.
    async fn clear(&self, graph: &str, node: &str) -> Result<(), CacheError>;
}

/// Why a cache did not do what was asked. A run takes it for a miss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The cache is down or busy.
    #[error("the node cache is unavailable: {message}")]
    Unavailable {
        /// What it said.
        message: String,
        /// The driver's own error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The graph has no node of this name.
    #[error("graph `{graph}` has no node `{node}`: name one that it has")]
    UnknownNode {
        /// The graph.
        graph: String,
        /// The name.
        node: String,
    },
}

impl CacheError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "cache::unavailable",
            Self::UnknownNode { .. } => "cache::unknown_node",
        }
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.tenant, self.graph, self.node, self.hash)
    }
}
