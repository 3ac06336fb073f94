//! Where the keys of tenants are kept, each wrapped by a master key.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;

use async_trait::async_trait;
use stepgraph::TenantId;

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresKeys;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteKeys;
use super::keys::{KeyError, KeyId};

/// A key as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptKey {
    /// Its number, higher than those of the tenant's keys before it.
    pub id: KeyId,
    /// What only the master key opens; `None` once it was destroyed.
    pub wrapped: Option<Vec<u8>>,
}

/// Prints the number alone.
impl fmt::Debug for KeptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrapped = self.wrapped.as_ref().map(|_| format_args!("***").to_string());
        f.debug_struct("KeptKey")
            .field("id", &self.id)
            .field("wrapped", &wrapped)
            .finish()
    }
}

/// A table of keys, wrapped. It knows no key itself.
///
/// Keep it, and the copies of it, apart from the copies of what the keys have sealed, and no copy for longer than an erased
/// tenant may come back: who has both, and the master key, reads what was erased.
///
/// ```
/// use std::{collections::BTreeMap, sync::Mutex};
/// use stepgraph::{TenantId, async_trait};
/// use stepgraph_checkpoint::seal::{KeptKey, KeyError, KeyId, KeyStore};
///
/// /// Keys that end with the process.
/// #[derive(Default)]
/// struct Passing(Mutex<BTreeMap<(TenantId, u32), Option<Vec<u8>>>>);
///
/// #[async_trait]
/// impl KeyStore for Passing {
///     async fn newest(&self, tenant: &TenantId) -> Result<Option<KeptKey>, KeyError> {
///         let keys = self.0.lock().map_err(|_| KeyError::unavailable("a panic"))?;
///         let newest = keys.iter().filter(|((of, _), _)| of == tenant).last();
///         Ok(newest.map(|((_, id), wrapped)| KeptKey { id: KeyId(*id), wrapped: wrapped.clone() }))
///     }
///
///     async fn get(&self, tenant: &TenantId, id: KeyId) -> Result<Option<KeptKey>, KeyError> {
///         let keys = self.0.lock().map_err(|_| KeyError::unavailable("a panic"))?;
///         let found = keys.get(&(tenant.clone(), id.0));
///         Ok(found.map(|wrapped| KeptKey { id, wrapped: wrapped.clone() }))
///     }
///
///     async fn keep(&self, tenant: &TenantId, id: KeyId, wrapped: &[u8]) -> Result<bool, KeyError> {
///         let mut keys = self.0.lock().map_err(|_| KeyError::unavailable("a panic"))?;
///         let place = (tenant.clone(), id.0);
///         let free = !keys.contains_key(&place);
///         keys.entry(place).or_insert_with(|| Some(wrapped.to_vec()));
///         Ok(free)
///     }
///
///     async fn rewrap(&self, tenant: &TenantId, id: KeyId, from: &[u8], to: &[u8]) -> Result<(), KeyError> {
///         let mut keys = self.0.lock().map_err(|_| KeyError::unavailable("a panic"))?;
///         match keys.get_mut(&(tenant.clone(), id.0)) {
///             Some(Some(wrapped)) if wrapped == from => *wrapped = to.to_vec(),
///             _ => {}
///         }
///         Ok(())
///     }
///
///     async fn destroy(&self, tenant: &TenantId) -> Result<u64, KeyError> {
///         let mut keys = self.0.lock().map_err(|_| KeyError::unavailable("a panic"))?;
///         let own = keys.iter_mut().filter(|((of, _), wrapped)| of == tenant && wrapped.is_some());
///         Ok(own.map(|(_, wrapped)| *wrapped = None).count() as u64)
///     }
/// }
/// ```
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// The tenant's key of the highest number, destroyed or not.
    async fn newest(&self, tenant: &TenantId) -> Result<Option<KeptKey>, KeyError>;

    /// The tenant's key of this number.
    async fn get(&self, tenant: &TenantId, id: KeyId) -> Result<Option<KeptKey>, KeyError>;

    /// Keeps a key, durably, unless its number was ever given to one; says whether it was kept.
    async fn keep(&self, tenant: &TenantId, id: KeyId, wrapped: &[u8]) -> Result<bool, KeyError>;

    /// Puts the same key in other wrapping, if it is still there in this one.
    async fn rewrap(&self, tenant: &TenantId, id: KeyId, from: &[u8], to: &[u8]) -> Result<(), KeyError>;

    /// Destroys every key of the tenant, and keeps their numbers; says how many there were.
    async fn destroy(&self, tenant: &TenantId) -> Result<u64, KeyError>;
}

/// The verbs over a table of a tenant, a number and the wrapped key, in either database: `$1` names a value in both.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
macro_rules! kept_in_table {
    ($keys:ty, $table:literal) => {
        use stepgraph::TenantId;

        use super::{KeptKey, KeyStore, number};
        use crate::seal::keys::KeyId;

        #[async_trait::async_trait]
        impl KeyStore for $keys {
            async fn newest(&self, tenant: &TenantId) -> Result<Option<KeptKey>, KeyError> {
                const NEWEST: &str = concat!(
                    "SELECT number, wrapped FROM ",
                    $table,
                    " WHERE tenant = $1 ORDER BY number DESC LIMIT 1"
                );
                let row: Option<(i64, Option<Vec<u8>>)> = sqlx::query_as(NEWEST)
                    .bind(tenant.as_str())
                    .fetch_optional(&self.0)
                    .await
                    .map_err(failed)?;
                let kept = row.map(|(id, wrapped)| {
                    Ok(KeptKey {
                        id: number(id)?,
                        wrapped,
                    })
                });
                kept.transpose()
            }

            async fn get(&self, tenant: &TenantId, id: KeyId) -> Result<Option<KeptKey>, KeyError> {
                const ONE: &str = concat!(
                    "SELECT wrapped FROM ",
                    $table,
                    " WHERE tenant = $1 AND number = $2"
                );
                let row: Option<(Option<Vec<u8>>,)> = sqlx::query_as(ONE)
                    .bind(tenant.as_str())
                    .bind(i64::from(id.0))
                    .fetch_optional(&self.0)
                    .await
                    .map_err(failed)?;
                Ok(row.map(|(wrapped,)| KeptKey { id, wrapped }))
            }

            async fn keep(&self, tenant: &TenantId, id: KeyId, wrapped: &[u8]) -> Result<bool, KeyError> {
                const KEEP: &str = concat!(
                    "INSERT INTO ",
                    $table,
                    " (tenant, number, wrapped) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
                );
                let kept = sqlx::query(KEEP)
                    .bind(tenant.as_str())
                    .bind(i64::from(id.0))
                    .bind(wrapped)
                    .execute(&self.0)
                    .await
                    .map_err(failed)?;
                Ok(kept.rows_affected() == 1)
            }

            async fn rewrap(&self, tenant: &TenantId, id: KeyId, from: &[u8], to: &[u8]) -> Result<(), KeyError> {
                const REWRAP: &str = concat!(
                    "UPDATE ",
                    $table,
                    " SET wrapped = $1 WHERE tenant = $2 AND number = $3 AND wrapped = $4"
                );
                sqlx::query(REWRAP)
                    .bind(to)
                    .bind(tenant.as_str())
                    .bind(i64::from(id.0))
                    .bind(from)
                    .execute(&self.0)
                    .await
                    .map_err(failed)?;
                Ok(())
            }

            async fn destroy(&self, tenant: &TenantId) -> Result<u64, KeyError> {
                const DESTROY: &str = concat!(
                    "UPDATE ",
                    $table,
                    " SET wrapped = NULL WHERE tenant = $1 AND wrapped IS NOT NULL"
                );
                let destroyed = sqlx::query(DESTROY)
                    .bind(tenant.as_str())
                    .execute(&self.0)
                    .await
                    .map_err(failed)?;
                Ok(destroyed.rows_affected())
            }
        }
    };
}
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use kept_in_table;

/// What a database says, without any value.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn failed(error: impl fmt::Display) -> KeyError {
    KeyError::unavailable(format!("{error}"))
}

/// A number as databases have it.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn number(stored: i64) -> Result<KeyId, KeyError> {
    let id = u32::try_from(stored).map(KeyId);
    id.map_err(|_| KeyError::unavailable(format!("a key has the number {stored}, which is none")))
}
