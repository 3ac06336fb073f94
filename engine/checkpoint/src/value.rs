//! Large values of a state, kept once a thread under a name that their bytes give, and compressed.
//!
//! A payload that is long enough is cut where `MessagePack` says that a large value begins and ends (`cut`). The row keeps a
//! stub: what is left, with names where the values were. The values lie beside the rows of their thread, each once however
//! many rows name it, and go with the last of these. All stores of rows share this code, and differ in where the values
//! lie.
//!
//! A store around another that seals what it keeps cuts before it seals, and gives the pieces on in a [`bundle`], which says
//! itself where it may be cut and what the pieces are called.

pub(crate) mod bundle;
mod cut;
pub(crate) mod pack;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
pub(crate) mod rows;
mod stub;

use std::{collections::BTreeSet, ops::Range};

pub(crate) use self::stub::{Broken, joined};

/// Values as long as this, encoded, are kept apart unless a store is told otherwise.
pub const LARGE_VALUE_BYTES: usize = 4096;

/// Bytes of a name.
pub(crate) const NAME_BYTES: usize = 32;

/// What a value is called inside its thread.
pub(crate) type Name = [u8; NAME_BYTES];

/// Names of pieces that were cut by somebody else have the highest bit set, and those of the store's own cutting do not: so
/// neither can stand for the other.
pub(crate) const GIVEN: u8 = 0x80;

/// A payload in pieces.
#[derive(Debug)]
pub(crate) struct Pieces<'p> {
    /// What is left, with names where the values were.
    pub(crate) stub: Vec<u8>,
    /// Each name once.
    pub(crate) values: Vec<(Name, &'p [u8])>,
}

/// Which values are kept apart, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    /// From so many bytes on.
    pub(crate) from: usize,
    /// From so many bytes on, what is kept is compressed here: `usize::MAX` where whoever gets it does that, the server or
    /// the seal.
    pub(crate) packed_from: usize,
}

/// Cuts a payload whose large values are named by `name`. `None` where nothing of it is large.
pub(crate) fn pieces(payload: &[u8], keeping: Keeping, name: impl Fn(&[u8]) -> Name) -> Option<Pieces<'_>> {
    let Keeping { from, packed_from } = keeping;
    if payload.len() < from || payload.first() == Some(&pack::NO_VALUE) {
        return None;
    }
    let (mut values, mut known) = (Vec::new(), BTreeSet::new());
    let (mut stub, mut at) = (stub::Writer::new(stub::Form::Cut), 0);
    for Range { start, end } in cut::large(payload, from) {
        let (Some(before), Some(value)) = (payload.get(at..start), payload.get(start..end)) else {
            continue;
        };
        let named = name(value);
        stub.bytes(before, packed_from);
        stub.name(&named);
        if known.insert(named) {
            values.push((named, value));
        }
        at = end;
    }
    stub.bytes(payload.get(at..).unwrap_or_default(), packed_from);
    let stub = stub.done();
    // Nothing was cut out and nothing compressed.
    let is_no_gain = values.is_empty() && stub.len() >= payload.len();
    (!is_no_gain).then_some(Pieces { stub, values })
}
