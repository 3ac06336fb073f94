//! Large values as rows keep them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use stepgraph::{CheckpointError, ThreadKey};

use super::{
    Broken, GIVEN, Keeping, NAME_BYTES, Name,
    bundle::Bundle,
    joined, pack, pieces,
    stub::{Form, Writer},
};
use crate::row::corrupt;

/// What stands before a value that is kept as it is.
const PLAIN: u8 = 0;
/// What stands before one that is compressed.
const PACKED: u8 = 1;

/// A large value beside the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) name: Name,
    /// A byte that says whether the rest is compressed, and the rest.
    pub(crate) body: Arc<[u8]>,
}

/// A payload as a row keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Kept<B> {
    /// The payload, or stubs.
    pub(crate) bytes: B,
    /// The values that the stubs name, each once. `None` where the bytes are the payload itself.
    pub(crate) values: Option<Vec<Value>>,
}

/// The payload of a checkpoint.
pub(crate) type KeptPayload = Kept<Arc<[u8]>>;
/// Several payloads in one row.
pub(crate) type KeptParts = Kept<Vec<Arc<[u8]>>>;

impl KeptPayload {
    /// Keeps large values apart.
    pub(crate) fn of(payload: &Arc<[u8]>, keeping: Keeping) -> Self {
        match cut(payload, keeping) {
            None => Self {
                bytes: Arc::clone(payload),
                values: None,
            },
            Some((stub, values)) => Self {
                bytes: stub.into(),
                values: Some(values),
            },
        }
    }
}

impl KeptParts {
    /// The same of several payloads in one row: all of them are stubs as soon as one is.
    pub(crate) fn of_parts(parts: &[Arc<[u8]>], keeping: Keeping) -> Self {
        let cuts: Vec<_> = parts.iter().map(|part| cut(part, keeping)).collect();
        if cuts.iter().all(Option::is_none) {
            return Self {
                bytes: parts.to_vec(),
                values: None,
            };
        }
        let (mut stubs, mut values): (Vec<Arc<[u8]>>, Vec<Value>) = Default::default();
        let mut known = BTreeSet::new();
        for (part, cut) in parts.iter().zip(cuts) {
            let (stub, own) = cut.unwrap_or_else(|| (uncut(part), Vec::new()));
            stubs.push(stub.into());
            values.extend(own.into_iter().filter(|value| known.insert(value.name)));
        }
        Self {
            bytes: stubs,
            values: Some(values),
        }
    }
}

/// A stub that names nothing.
fn uncut(part: &[u8]) -> Vec<u8> {
    let mut stub = Writer::new(Form::Cut);
    stub.bytes(part, usize::MAX);
    stub.done()
}

fn cut(payload: &[u8], keeping: Keeping) -> Option<(Vec<u8>, Vec<Value>)> {
    if payload.len() < keeping.from {
        return None;
    }
    if let Some(Bundle { head, pieces }) = Bundle::read(payload) {
        let mut stub = Writer::new(Form::Bundle);
        stub.bytes(head, usize::MAX);
        let (mut values, mut known) = (Vec::with_capacity(pieces.len()), BTreeSet::new());
        for (name, piece) in pieces {
            stub.name(&name);
            if known.insert(name) {
                // Sealed, and compressed before that.
                let body = [&[PLAIN], piece].concat().into();
                values.push(Value { name, body });
            }
        }
        return Some((stub.done(), values));
    }
    let pieces = pieces(payload, keeping, digest)?;
    let values = pieces.values.into_iter().map(|(name, plain)| Value {
        name,
        body: body(plain, keeping.packed_from).into(),
    });
    Some((pieces.stub, values.collect()))
}

/// The name of a value by its bytes.
fn digest(plain: &[u8]) -> Name {
    let mut name: Name = Sha256::digest(plain).into();
    if let Some(first) = name.first_mut() {
        *first &= !GIVEN;
    }
    name
}

fn body(plain: &[u8], packed_from: usize) -> Vec<u8> {
    let packed = if plain.len() < packed_from {
        None
    } else {
        pack::pack(plain)
    };
    match packed {
        Some(packed) => [&[PACKED], packed.as_slice()].concat(),
        None => [&[PLAIN], plain].concat(),
    }
}

/// The values of a thread that were read.
#[derive(Debug, Default)]
pub(crate) struct Shelf<'r>(BTreeMap<Name, Cow<'r, [u8]>>);

impl<'r> Shelf<'r> {
    /// Puts a value there as it stood beside the rows.
    pub(crate) fn put(&mut self, key: &ThreadKey, name: &[u8], body: &'r [u8]) -> Result<(), CheckpointError> {
        let unreadable = || corrupt(key, "a large value that cannot be read");
        let name = <[u8; NAME_BYTES]>::try_from(name).map_err(|_| unreadable())?;
        let plain = match body.split_first() {
            Some((&PLAIN, plain)) => Cow::Borrowed(plain),
            Some((&PACKED, packed)) => Cow::Owned(pack::unpack(packed).ok_or_else(unreadable)?),
            _ => return Err(unreadable()),
        };
        self.0.insert(name, plain);
        Ok(())
    }

    /// The payload of a stub.
    pub(crate) fn joined(&self, key: &ThreadKey, stub: &[u8]) -> Result<Arc<[u8]>, CheckpointError> {
        let whole = joined(stub, |name| self.0.get(name).map(AsRef::as_ref));
        whole.map(Into::into).map_err(|broken| {
            corrupt(
                key,
                match broken {
                    Broken::Cut => {
                        "a state whose large values are kept apart is cut off, or written by a later release"
                    }
                    Broken::Missing => "a large value of a state is not there",
                },
            )
        })
    }
}
