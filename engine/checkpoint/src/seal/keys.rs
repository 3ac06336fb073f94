//! The keys that threads are sealed with.

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};
use stepgraph::TenantId;

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Most master keys at a time: one in use, the others until what they sealed is gone.
pub const MASTER_KEYS_MAX: usize = 16;

/// Number of a key: it stands beside what the key has sealed, in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key of one tenant. Nothing is sealed with it itself: each thread has keys of its own that are derived from it.
#[derive(Clone)]
pub struct TenantKey(pub(super) Prk);

impl TenantKey {
    /// A key of these bytes, which are as hard to guess as they are many: random ones, or derived from such.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Salt::new(HKDF_SHA256, b"stepgraph/tenant").extract(bytes))
    }
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantKey(***)")
    }
}

/// Gives the keys of tenants.
///
/// A key is known by its tenant and its number, and the same number always gives the same key. To change keys, `current`
/// names another, and the older stay until nothing is left that they have sealed. Where each tenant has a key of its own
/// that is kept elsewhere, erasing it makes whatever the tenant has in the store, and in every copy of the store,
/// unreadable at once: [`KeyError::Unknown`] from then on.
///
/// Asked at every call of the store: what lies far away, keep for a while.
///
/// ```
/// use std::{collections::HashMap, sync::RwLock};
/// use stepgraph::{TenantId, async_trait};
/// use stepgraph_checkpoint::seal::{KeyError, KeyId, Keys, TenantKey};
///
/// /// One key a tenant, which can be erased.
/// #[derive(Default)]
/// struct Vault(RwLock<HashMap<TenantId, TenantKey>>);
///
/// #[async_trait]
/// impl Keys for Vault {
///     async fn current(&self, _: &TenantId) -> Result<KeyId, KeyError> {
///         Ok(KeyId(1))
///     }
///
///     async fn key(&self, tenant: &TenantId, _: KeyId) -> Result<TenantKey, KeyError> {
///         let keys = self.0.read().map_err(|_| KeyError::unavailable("the vault is broken"))?;
///         keys.get(tenant).cloned().ok_or(KeyError::Unknown)
///     }
/// }
/// ```
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// The key that is to seal what the tenant writes from now on.
    async fn current(&self, tenant: &TenantId) -> Result<KeyId, KeyError>;

    /// A key of the tenant's.
    async fn key(&self, tenant: &TenantId, id: KeyId) -> Result<TenantKey, KeyError>;

    /// Destroys the tenant's keys, where they are its own: [`Sealed`](super::Sealed) asks for it when the tenant is erased.
    /// Keys that are derived cannot be destroyed, and stay.
    async fn erase(&self, _tenant: &TenantId) -> Result<(), KeyError> {
        Ok(())
    }
}

#[async_trait]
impl<K: Keys + ?Sized> Keys for Arc<K> {
    async fn current(&self, tenant: &TenantId) -> Result<KeyId, KeyError> {
        (**self).current(tenant).await
    }

    async fn key(&self, tenant: &TenantId, id: KeyId) -> Result<TenantKey, KeyError> {
        (**self).key(tenant, id).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), KeyError> {
        (**self).erase(tenant).await
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is none of this number, or it was erased.
    #[error("the tenant has no key of this number")]
    Unknown,
    /// Whoever keeps the keys cannot be asked; later may help.
    #[error("the keys cannot be read: {message}")]
    Unavailable {
        /// What went wrong, without any key.
        message: String,
    },
}

impl KeyError {
    /// Whoever keeps the keys cannot be asked.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable {
            message: message.into(),
        }
    }
}

/// Master keys of the operator's. They wrap the keys that tenants have of their own ([`TenantKeys`](super::TenantKeys)), or,
/// taken for themselves, the keys of all tenants are derived from them: the first seals, and each opens what it has sealed.
///
/// As text, they are numbers and random bytes in base64, by commas, the one in use first. To change keys, put a new one
/// before the old; take the old one out when no thread is left that it has sealed.
///
/// ```
/// use stepgraph_checkpoint::seal::MasterKeys;
///
/// // `openssl rand -base64 32` gives one.
/// let keys: MasterKeys = "1:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=".parse()?;
/// assert_eq!(format!("{keys:?}"), "MasterKeys([1: ***])");
/// assert!("1:c2hvcnQ=".parse::<MasterKeys>().is_err());
/// # Ok::<(), stepgraph_checkpoint::seal::InvalidKeys>(())
/// ```
#[derive(Clone)]
pub struct MasterKeys {
    current: KeyId,
    keys: Vec<(KeyId, Prk)>,
}

impl MasterKeys {
    /// One key.
    #[must_use]
    pub fn new(id: KeyId, bytes: &[u8; KEY_BYTES]) -> Self {
        Self {
            current: id,
            keys: vec![(id, master(bytes))],
        }
    }

    /// The same, with one more that opens what it once has sealed.
    ///
    /// # Errors
    /// If there is one of that number, or there are [`MASTER_KEYS_MAX`].
    pub fn and_older(mut self, id: KeyId, bytes: &[u8; KEY_BYTES]) -> Result<Self, InvalidKeys> {
        if self.keys.iter().any(|(known, _)| *known == id) {
            return Err(InvalidKeys::Twice { id });
        }
        if self.keys.len() == MASTER_KEYS_MAX {
            return Err(InvalidKeys::TooMany);
        }
        self.keys.push((id, master(bytes)));
        Ok(self)
    }

    pub(super) const fn current_id(&self) -> KeyId {
        self.current
    }

    /// What a master key wraps keys of tenants with. No tenant has a slash in its name, so none has this for its own.
    pub(super) fn wrapping(&self, id: KeyId) -> Option<UnboundKey> {
        let (_, key) = self.keys.iter().find(|(known, _)| *known == id)?;
        let derived = key.expand(&[b"/keys of tenants"], &AES_256_GCM);
        derived.ok().map(UnboundKey::from)
    }

    /// The numbers of the keys, the one in use first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.iter().map(|(id, _)| *id)
    }
}

fn master(bytes: &[u8; KEY_BYTES]) -> Prk {
    Salt::new(HKDF_SHA256, b"stepgraph/master").extract(bytes)
}

/// Prints the numbers alone.
impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|(id, _)| format!("{id}: ***")).collect();
        write!(f, "MasterKeys([{}])", ids.join(", "))
    }
}

/// Why a text is not a list of keys. It never says what the text is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeys {
    /// A part has another form.
    #[error(
        "key {place} of the list is not `NUMBER:BASE64` with 32 random bytes: `openssl rand -base64 32` gives them"
    )]
    Form {
        /// Which of the list, counted from 1.
        place: usize,
    },
    /// Two have one number.
    #[error("two keys have the number {id}: give each its own, and never one again")]
    Twice {
        /// The number.
        id: KeyId,
    },
    /// There are too many.
    #[error("there are more than {MASTER_KEYS_MAX} keys: take out those that nothing is sealed with any more")]
    TooMany,
}

impl FromStr for MasterKeys {
    type Err = InvalidKeys;

    fn from_str(text: &str) -> Result<Self, InvalidKeys> {
        let mut keys: Option<Self> = None;
        for (index, part) in text.split(',').enumerate().take(MASTER_KEYS_MAX + 1) {
            let form = || InvalidKeys::Form { place: index + 1 };
            let (id, key) = part.trim().split_once(':').ok_or_else(form)?;
            let id = KeyId(id.parse().map_err(|_| form())?);
            let bytes = STANDARD.decode(key).map_err(|_| form())?;
            let bytes: &[u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| form())?;
            keys = Some(match keys {
                None => Self::new(id, bytes),
                Some(keys) => keys.and_older(id, bytes)?,
            });
        }
        keys.ok_or(InvalidKeys::Form { place: 1 })
    }
}

#[async_trait]
impl Keys for MasterKeys {
    async fn current(&self, _: &TenantId) -> Result<KeyId, KeyError> {
        Ok(self.current)
    }

    async fn key(&self, tenant: &TenantId, id: KeyId) -> Result<TenantKey, KeyError> {
        let (_, key) = self
            .keys
            .iter()
            .find(|(known, _)| *known == id)
            .ok_or(KeyError::Unknown)?;
        let mut bytes = [0; KEY_BYTES];
        key.expand(&[tenant.as_str().as_bytes()], KeyBytes)
            .and_then(|derived| derived.fill(&mut bytes))
            .map_err(|_| KeyError::unavailable("a key cannot be derived"))?;
        Ok(TenantKey::new(&bytes))
    }
}

/// How much of a derived key is wanted.
struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}
