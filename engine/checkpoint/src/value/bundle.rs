//! A payload that says itself where it may be cut, and what the pieces are called: what a store that seals gives to the one
//! that it stands around. To a store that knows nothing of it, it is bytes like any others.

use super::{GIVEN, NAME_BYTES, Name, pack::NO_VALUE, stub::counted};

/// No value of `MessagePack` begins so, and nothing that is sealed goes on so.
const MARK: [u8; 2] = [NO_VALUE, b'B'];

/// A bundle that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bundle<'b> {
    /// What is no piece.
    pub(crate) head: &'b [u8],
    /// The pieces, with their names.
    pub(crate) pieces: Vec<(Name, &'b [u8])>,
}

impl<'b> Bundle<'b> {
    /// `None` where the bytes are no bundle.
    pub(crate) fn read(bytes: &'b [u8]) -> Option<Self> {
        let (head, mut rest) = counted(bytes.strip_prefix(&MARK)?).ok()?;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_first_chunk::<NAME_BYTES>()?;
            let (piece, after) = counted(after).ok()?;
            if name.first()? & GIVEN == 0 {
                return None;
            }
            pieces.push((*name, piece));
            rest = after;
        }
        Some(Self { head, pieces })
    }
}

/// Writes a bundle: its head, then its pieces.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn head(&mut self, head: &[u8]) {
        self.0.extend_from_slice(&MARK);
        self.counted(head);
    }

    pub(crate) fn piece(&mut self, name: &Name, piece: &[u8]) {
        self.0.extend_from_slice(name);
        self.counted(piece);
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.0
            .extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}
