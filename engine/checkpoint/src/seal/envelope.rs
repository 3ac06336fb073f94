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
use crate::value::{
    GIVEN, Name,
    pack::{NO_VALUE, pack, unpack},
};

/// The first byte of what is sealed. No value of `MessagePack` begins so, and it is no text: what is plain shows.
const MARK: u8 = NO_VALUE;
const VERSION: u8 = 1;
/// Bits of the third byte: what is sealed was compressed; it is a stub, put together with large values that are sealed apart.
const IS_PACKED: u8 = 1;
const IS_STUB: u8 = 2;
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

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Everything.
    Whole,
    /// A stub, which names large values.
    Stub,
}

/// Which of both it says to be. It is bound to the rest: what opens has said the truth.
pub(super) fn content(sealed: &[u8]) -> Content {
    match sealed.get(2) {
        Some(bits) if bits & IS_STUB != 0 => Content::Stub,
        _ => Content::Whole,
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
    values: hmac::Key,
}

impl Cipher {
    pub(super) fn of(thread: &ThreadKey, id: KeyId, key: &TenantKey) -> Result<Self, Broken> {
        // Neither a tenant nor a thread has a slash in its name, so no two threads say the same.
        let whose = format!("{}/{}/{}", thread.tenant, thread.thread, thread.namespace);
        let of = |what: &'static [u8]| [what, whose.as_bytes()];
        let (body, names, values) = (of(b"body/"), of(b"name/"), of(b"value/"));
        let body = key.0.expand(&body, &AES_256_GCM)?;
        let names = key.0.expand(&names, hmac::HMAC_SHA256)?;
        let values = key.0.expand(&values, hmac::HMAC_SHA256)?;
        Ok(Self {
            id,
            body: LessSafeKey::new(UnboundKey::from(body)),
            names: hmac::Key::from(names),
            values: hmac::Key::from(values),
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

    /// What a large value is called: the same for the same value in this thread, and telling nothing else.
    pub(super) fn value_name(&self, value: &[u8]) -> Name {
        let mut name = Name::default();
        let tag = hmac::sign(&self.values, value);
        for (to, from) in name.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        if let Some(first) = name.first_mut() {
            *first |= GIVEN;
        }
        name
    }

    /// Compresses where that helps, then seals. `clear` goes before the rest, readable and bound to it.
    pub(super) fn seal(
        &self,
        thread: &ThreadKey,
        place: &Place<'_>,
        clear: &[u8],
        (content, plain): (Content, &[u8]),
    ) -> Result<Vec<u8>, Unspecified> {
        let packed = pack(plain);
        let [a, b, c, d] = self.id.0.to_be_bytes();
        let mut sealed = Vec::with_capacity(HEAD_LEN + clear.len() + NONCE_LEN + plain.len() + 16);
        let packing = if packed.is_some() { IS_PACKED } else { 0 };
        let stub = if content == Content::Stub { IS_STUB } else { 0 };
        sealed.extend_from_slice(&[MARK, VERSION, packing | stub, a, b, c, d]);
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
        match head.get(2).map(|bits| bits & !IS_STUB) {
            Some(0) => Ok(body),
            Some(IS_PACKED) => unpack(&body).ok_or(Broken::Cut),
            _ => Err(Broken::Cut),
        }
    }
}
