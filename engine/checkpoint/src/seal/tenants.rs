//! A key of each tenant's own, which can be destroyed.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use ring::{
    aead::{Aad, LessSafeKey, NONCE_LEN, Nonce},
    error::Unspecified,
    rand::{SecureRandom as _, SystemRandom},
};
use stepgraph::TenantId;
use tokio::time::Instant;

use super::{
    keys::{KEY_BYTES, KeyError, KeyId, Keys, MasterKeys, TenantKey},
    store::{KeptKey, KeyStore},
};

/// Numbers from here on are of keys that tenants have of their own; below are the master keys', from which keys were
/// derived before.
pub const OWN_KEYS_FROM: u32 = 1 << 31;
/// How long a process goes on with a key that another has destroyed.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(30);
/// Most keys remembered at a time.
const REMEMBERED_MAX: usize = 4_096;
/// How often another process may make a tenant's key first.
const TRIES_MAX: usize = 4;
/// The first byte of a wrapped key.
const VERSION: u8 = 1;
/// Version, and the number of the master key.
const HEAD_LEN: usize = 5;

/// One random key for each tenant, made at its first write and kept in a [`KeyStore`], wrapped by the master key. Once it
/// is destroyed, nothing that the tenant ever wrote opens any more, in no copy of any day
/// ([`CheckpointError::NoKey`](stepgraph::CheckpointError::NoKey)), as long as no copy of the key is left. A tenant of the
/// same name that writes again is given a key of another number.
///
/// What was sealed by [`MasterKeys`] alone still opens; only what is written from then on can be made unreadable by
/// destroying a key.
///
/// To change the master key, put a new one before the old ([`MasterKeys`]): a tenant's key is wrapped anew at the tenant's
/// next write, and what it has sealed stays as it is.
pub struct TenantKeys<K> {
    master: MasterKeys,
    store: K,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<(TenantId, KeyId), (Instant, TenantKey)>,
    current: HashMap<TenantId, (Instant, KeyId)>,
}

impl<K: fmt::Debug> fmt::Debug for TenantKeys<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKeys")
            .field("master", &self.master)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<K: KeyStore> TenantKeys<K> {
    /// Keys that are kept in `store`, wrapped by the first of the master keys.
    pub fn new(master: MasterKeys, store: K) -> Self {
        Self {
            master,
            store,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, tenant: &TenantId, id: KeyId, key: &TenantKey) {
        let mut known = self.known();
        if known.keys.len() >= REMEMBERED_MAX {
            *known = Known::default();
        }
        known.keys.insert((tenant.clone(), id), (Instant::now(), key.clone()));
    }

    fn remembered(&self, tenant: &TenantId, id: KeyId) -> Option<TenantKey> {
        let known = self.known();
        let (since, key) = known.keys.get(&(tenant.clone(), id))?;
        (since.elapsed() < REMEMBERED_FOR).then(|| key.clone())
    }

    /// The tenant's newest key, or a new one.
    async fn newest(&self, tenant: &TenantId) -> Result<KeyId, KeyError> {
        for _ in 0..TRIES_MAX {
            let next = match self.store.newest(tenant).await? {
                Some(KeptKey {
                    id,
                    wrapped: Some(wrapped),
                }) => {
                    let key = self.opened(tenant, id, &wrapped)?;
                    if master_of(&wrapped) != Some(self.master.current_id()) {
                        let anew = self.wrap(tenant, id, &key)?;
                        self.store.rewrap(tenant, id, &wrapped, &anew).await?;
                    }
                    self.remember(tenant, id, &TenantKey::new(&key));
                    return Ok(id);
                }
                Some(KeptKey { id, wrapped: None }) => id.0.checked_add(1),
                None => Some(OWN_KEYS_FROM),
            };
            let next = next
                .map(KeyId)
                .ok_or_else(|| KeyError::unavailable("the numbers of keys are used up"))?;
            let mut key = [0; KEY_BYTES];
            let random = SystemRandom::new().fill(&mut key);
            random.map_err(|_| KeyError::unavailable("the machine gives no random bytes for a key"))?;
            // If another process was first, its key counts.
            self.store.keep(tenant, next, &self.wrap(tenant, next, &key)?).await?;
        }
        Err(KeyError::unavailable(
            "the tenant's key is destroyed as often as it is made",
        ))
    }

    fn wrap(&self, tenant: &TenantId, id: KeyId, key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, KeyError> {
        let sealed = || {
            let master = self.master.current_id();
            let cipher = self.cipher(master).ok_or(Unspecified)?;
            let mut nonce = [0; NONCE_LEN];
            SystemRandom::new().fill(&mut nonce)?;
            let mut body = key.to_vec();
            cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(tenant, id), &mut body)?;
            Ok::<_, Unspecified>(
                [
                    &[VERSION],
                    master.0.to_be_bytes().as_slice(),
                    nonce.as_slice(),
                    body.as_slice(),
                ]
                .concat(),
            )
        };
        sealed().map_err(|_| KeyError::unavailable("a key cannot be wrapped"))
    }

    fn opened(&self, tenant: &TenantId, id: KeyId, wrapped: &[u8]) -> Result<[u8; KEY_BYTES], KeyError> {
        let master =
            master_of(wrapped).ok_or_else(|| KeyError::unavailable("a kept key is cut, or of a later release"))?;
        let cipher = self.cipher(master).ok_or_else(|| {
            KeyError::unavailable(format!(
                "a tenant's key is wrapped by master key {master}, and there is none: give it"
            ))
        })?;
        let open = || {
            let (nonce, body) = wrapped.get(HEAD_LEN..)?.split_at_checked(NONCE_LEN)?;
            let mut body = body.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let key = cipher.open_in_place(nonce, aad(tenant, id), &mut body).ok()?;
            <[u8; KEY_BYTES]>::try_from(&*key).ok()
        };
        open().ok_or_else(|| {
            KeyError::unavailable(format!(
                "a tenant's key does not open: master key {master} is another than it was wrapped by, or the row was changed"
            ))
        })
    }

    fn cipher(&self, master: KeyId) -> Option<LessSafeKey> {
        self.master.wrapping(master).map(LessSafeKey::new)
    }
}

/// Which master key has wrapped a key.
fn master_of(wrapped: &[u8]) -> Option<KeyId> {
    match wrapped {
        [VERSION, a, b, c, d, ..] => Some(KeyId(u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => None,
    }
}

/// A wrapped key opens for its tenant and its number alone. No tenant has a slash in its name.
fn aad(tenant: &TenantId, id: KeyId) -> Aad<Vec<u8>> {
    Aad::from(format!("stepgraph/tenant key/{tenant}/{id}").into_bytes())
}

#[async_trait]
impl<K: KeyStore> Keys for TenantKeys<K> {
    async fn current(&self, tenant: &TenantId) -> Result<KeyId, KeyError> {
        let fresh = |(since, id): &(Instant, KeyId)| (since.elapsed() < REMEMBERED_FOR).then_some(*id);
        if let Some(id) = self.known().current.get(tenant).and_then(fresh) {
            return Ok(id);
        }
        let id = self.newest(tenant).await?;
        self.known().current.insert(tenant.clone(), (Instant::now(), id));
        Ok(id)
    }

    async fn key(&self, tenant: &TenantId, id: KeyId) -> Result<TenantKey, KeyError> {
        if id.0 < OWN_KEYS_FROM {
            return self.master.key(tenant, id).await;
        }
        if let Some(key) = self.remembered(tenant, id) {
            return Ok(key);
        }
        let kept = self.store.get(tenant, id).await?.and_then(|kept| kept.wrapped);
        let key = self.opened(tenant, id, &kept.ok_or(KeyError::Unknown)?)?;
        let key = TenantKey::new(&key);
        self.remember(tenant, id, &key);
        Ok(key)
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), KeyError> {
        let destroyed = self.store.destroy(tenant).await;
        let mut known = self.known();
        known.keys.retain(|(of, _), _| of != tenant);
        known.current.remove(tenant);
        destroyed.map(|_| ())
    }
}
