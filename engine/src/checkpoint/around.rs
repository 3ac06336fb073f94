//! Stores that stand around another.

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    At, Branch, Checkpoint, CheckpointError, CheckpointInfo, Checkpointer, Commit, Epoch, OutboxMessage, Page, Seq,
    StoreDurability, Tag, Thinning,
};
use crate::id::{Namespace, TenantId, ThreadId, ThreadKey};

/// A store that stands around another: to seal what it keeps, to count, to break. It says [`within`](Self::within), and
/// of the verbs only those that it has something to do in; each of the others is asked of the store within. Whatever
/// implements this is a [`Checkpointer`], whose methods say what the ones here mean.
///
/// What the store within does in a verb it does by its own: `erase` calls its `delete`, not the one here. A store around
/// another is never one that answers [at once](Checkpointer::at_once), so that no commit passes it by. A verb that is
/// only passed on costs two boxes beside the one of the store within.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use stepgraph::{
///     Checkpointer, CheckpointError, Memory, TenantId, ThreadId, ThreadKey, async_trait,
///     checkpoint::{AroundStore, At, Checkpoint},
/// };
///
/// #[derive(Default)]
/// struct Counted(Memory, AtomicU64);
///
/// #[async_trait]
/// impl AroundStore for Counted {
///     fn within(&self) -> &dyn Checkpointer {
///         &self.0
///     }
///
///     async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         self.within().get(key, at).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counted = Counted::default();
/// let store: &dyn Checkpointer = &counted;
/// let key = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::new("t")?);
/// store.claim(&key).await?;
/// assert!(store.get(&key, At::Head).await?.is_none());
/// assert_eq!(counted.1.load(Ordering::Relaxed), 1);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait AroundStore: Send + Sync + 'static {
    /// The store that this one stands around.
    fn within(&self) -> &dyn Checkpointer;

    /// See [`Checkpointer::durability`].
    fn durability(&self) -> StoreDurability {
        self.within().durability()
    }

    /// See [`Checkpointer::claim`].
    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.within().claim(key).await
    }

    /// See [`Checkpointer::commit`].
    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        self.within().commit(key, epoch, expected, commit).await
    }

    /// See [`Checkpointer::get`].
    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        self.within().get(key, at).await
    }

    /// See [`Checkpointer::list`].
    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        self.within().list(key, page).await
    }

    /// See [`Checkpointer::branch`].
    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        self.within().branch(key, epoch, from, name).await
    }

    /// See [`Checkpointer::branches`].
    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        self.within().branches(key).await
    }

    /// See [`Checkpointer::inner`].
    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        self.within().inner(key, after, limit).await
    }

    /// See [`Checkpointer::delete`].
    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        self.within().delete(key).await
    }

    /// See [`Checkpointer::unfinished`].
    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        self.within().unfinished(graph, limit).await
    }

    /// See [`Checkpointer::outbox`].
    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        self.within().outbox(topic, limit).await
    }

    /// See [`Checkpointer::acknowledge`].
    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        self.within().acknowledge(key, message).await
    }

    /// See [`Checkpointer::tag`].
    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        self.within().tag(key, name, at).await
    }

    /// See [`Checkpointer::tags`].
    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        self.within().tags(key).await
    }

    /// See [`Checkpointer::threads`].
    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        self.within().threads(tenant, after, limit).await
    }

    /// See [`Checkpointer::thin`].
    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        self.within().thin(key, thinning).await
    }

    /// See [`Checkpointer::erase`].
    async fn erase(&self, tenant: &TenantId) -> Result<(), CheckpointError> {
        self.within().erase(tenant).await
    }
}

/// Every verb as the store around the other says it.
#[async_trait]
impl<T: AroundStore> Checkpointer for T {
    fn durability(&self) -> StoreDurability {
        AroundStore::durability(self)
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        AroundStore::claim(self, key).await
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        AroundStore::commit(self, key, epoch, expected, commit).await
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        AroundStore::get(self, key, at).await
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        AroundStore::list(self, key, page).await
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        AroundStore::branch(self, key, epoch, from, name).await
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        AroundStore::branches(self, key).await
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        AroundStore::inner(self, key, after, limit).await
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        AroundStore::delete(self, key).await
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        AroundStore::unfinished(self, graph, limit).await
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        AroundStore::outbox(self, topic, limit).await
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        AroundStore::acknowledge(self, key, message).await
    }

    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        AroundStore::tag(self, key, name, at).await
    }

    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        AroundStore::tags(self, key).await
    }

    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        AroundStore::threads(self, tenant, after, limit).await
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        AroundStore::thin(self, key, thinning).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), CheckpointError> {
        AroundStore::erase(self, tenant).await
    }
}
