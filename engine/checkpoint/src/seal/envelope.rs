//! What is sealed, as bytes: a head in the clear, then what only the key opens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use stepgraph::ThreadKey;

use super::{
    keys::{KeyId, TenantKey},
    place::Place,
};

/// The first byte of what is sealed. No value of `MessagePack` begins so, and it is no text: what is plain shows.
const MARK: u8 = 0xc1;
const VERSION: u8 = 1;
/// What is shorter is sealed as it is: little would be won.
const COMPRESSED_OVER: usize = 256;
/// What is longer is sealed as it is, and what says that it unpacks to more is refused before anything is allocated.
const UNPACKED_MAX: usize = 256 << 20;
/// Bytes of a digest that are kept: two of one thread are the same by chance once in 2^64 keys.
const NAME_BYTES: usize = 16;
/// Mark, version, packing, and the key's number.
pub(super) const HEAD_LEN: usize = 7;

/// Why something does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It was never sealed.
    Plain,
    /// It ends too early to be anything, or is of a version to come.
    Cut,
    /// The key says no.
    Forged,
}

impl From<Unspecified> for Broken {
    fn from(_: Unspecified) -> Self {
        Self::Forged
    }
}

/// The number of the key that something was sealed with.
pub(super) fn key_id(sealed: &[u8]) -> Result<KeyId, Broken> {
    match sealed {
        [MARK, VERSION, _, a, b, c, d, ..] => Ok(KeyId(u32::from_be_bytes([*a, *b, *c, *d]))),
        [MARK, ..] => Err(Broken::Cut),
        _ => Err(Broken::Plain),
    }
}

/// Seals and opens for one thread, with one key.
///
/// AES-256-GCM with a random nonce of 96 bits, under a key of the thread's own (and of its namespace's): no more than 2^32
/// things may be sealed so, and a thread of a hundred thousand steps seals fewer than 2^20, of which two have the same nonce
/// by a chance of one in 2^57.
pub(super) struct Cipher {
    pub(super) id: KeyId,
    body: LessSafeKey,
    names: hmac::Key,
}

impl Cipher {
    pub(super) fn of(thread: &ThreadKey, id: KeyId, key: &TenantKey) -> Result<Self, Broken> {
        // Neither a tenant nor a thread has a slash in its name, so no two threads say the same.
        let whose = format!("{}/{}/{}", thread.tenant, thread.thread, thread.namespace);
        let (body, names) = ([b"body/", whose.as_bytes()], [b"name/", whose.as_bytes()]);
        let body = key.0.expand(&body, &AES_256_GCM)?;
        let names = key.0.expand(&names, hmac::HMAC_SHA256)?;
        Ok(Self {
            id,
            body: LessSafeKey::new(UnboundKey::from(body)),
            names: hmac::Key::from(names),
        })
    }

    /// What stands for a user's own key of a record: the same for the same key in the same place, and telling nothing else.
    pub(super) fn name(&self, task: &str, kind: &str, key: &str) -> String {
        if key.is_empty() {
            return String::new();
        }
        let mut digest = hmac::Context::with_key(&self.names);
        for part in [task, kind, key] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let tag = digest.sign();
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..NAME_BYTES).unwrap_or_default())
    }

    /// Compresses where that helps, then seals. `clear` goes before the rest, readable and bound to it.
    pub(super) fn seal(
        &self,
        thread: &ThreadKey,
        place: &Place<'_>,
        clear: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, Unspecified> {
        let packed = pack(plain);
        let [a, b, c, d] = self.id.0.to_be_bytes();
        let mut sealed = Vec::with_capacity(HEAD_LEN + clear.len() + NONCE_LEN + plain.len() + 16);
        sealed.extend_from_slice(&[MARK, VERSION, u8::from(packed.is_some()), a, b, c, d]);
        sealed.extend_from_slice(clear);
        let aad = Aad::from(place.bytes(thread, &sealed));
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce)?;
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(packed.as_deref().unwrap_or(plain));
        let body = sealed.get_mut(start..).ok_or(Unspecified)?;
        let tag = self
            .body
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The same backwards; `clear` is how long the readable part is.
    pub(super) fn open(
        &self,
        thread: &ThreadKey,
        place: &Place<'_>,
        clear: usize,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Broken> {
        key_id(sealed)?;
        let (head, rest) = sealed.split_at_checked(HEAD_LEN + clear).ok_or(Broken::Cut)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(Broken::Cut)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let mut body = body.to_vec();
        let length = self
            .body
            .open_in_place(nonce, Aad::from(place.bytes(thread, head)), &mut body)?
            .len();
        body.truncate(length);
        match head.get(2) {
            Some(0) => Ok(body),
            Some(1) => unpack(&body),
            _ => Err(Broken::Cut),
        }
    }
}

/// Refuses what says that it is longer than anything that was ever packed.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, Broken> {
    let (length, body) = packed.split_first_chunk::<4>().ok_or(Broken::Cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Broken::Cut)?;
    if length > UNPACKED_MAX {
        return Err(Broken::Cut);
    }
    lz4_flex::block::decompress(body, length).map_err(|_| Broken::Cut)
}

fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    if !(COMPRESSED_OVER..=UNPACKED_MAX).contains(&plain.len()) {
        return None;
    }
    let packed = lz4_flex::block::compress_prepend_size(plain);
    (packed.len() < plain.len()).then_some(packed)
}
