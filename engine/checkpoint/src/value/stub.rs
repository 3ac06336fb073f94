//! What is left of a payload once its large values are kept apart.
//!
//! A byte says what the whole is put together to; then one part follows the other: bytes as they are or compressed, behind
//! their length of four bytes, or the name of a value.

use super::{NAME_BYTES, Name, bundle, pack};

const PLAIN: u8 = 0;
const PACKED: u8 = 1;
const NAME: u8 = 2;

/// What a stub is put together to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The parts, one behind the other.
    Cut,
    /// A bundle: its head, then its pieces with their names.
    Bundle,
}

/// A stub is cut off, or names a value that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It ends too early, or is of a release to come.
    Cut,
    /// It names a value that is not there.
    Missing,
}

/// Writes a stub from its beginning to its end.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(form: Form) -> Self {
        Self(vec![match form {
            Form::Cut => 0,
            Form::Bundle => 1,
        }])
    }

    /// Bytes that stay in the row, compressed where they are as many as a large value.
    pub(super) fn bytes(&mut self, bytes: &[u8], packed_from: usize) {
        if bytes.is_empty() {
            return;
        }
        let packed = if bytes.len() < packed_from {
            None
        } else {
            pack::pack(bytes)
        };
        match packed {
            Some(packed) => self.counted(PACKED, &packed),
            None => self.counted(PLAIN, bytes),
        }
    }

    fn counted(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        // A row of four gigabytes is beyond every database.
        self.0
            .extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn name(&mut self, name: &Name) {
        self.0.push(NAME);
        self.0.extend_from_slice(name);
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Puts a stub together with its values again.
pub(crate) fn joined<'v>(stub: &[u8], value: impl Fn(&Name) -> Option<&'v [u8]>) -> Result<Vec<u8>, Broken> {
    let (form, mut rest) = stub.split_first().ok_or(Broken::Cut)?;
    let mut whole = match form {
        0 => Whole::Cut(Vec::with_capacity(stub.len())),
        1 => Whole::Bundle(bundle::Writer::default()),
        _ => return Err(Broken::Cut),
    };
    while let Some((tag, after)) = rest.split_first() {
        rest = match *tag {
            NAME => {
                let (name, after) = after.split_first_chunk::<NAME_BYTES>().ok_or(Broken::Cut)?;
                whole.value(name, value(name).ok_or(Broken::Missing)?);
                after
            }
            PLAIN => {
                let (bytes, after) = counted(after)?;
                whole.bytes(bytes);
                after
            }
            PACKED => {
                let (bytes, after) = counted(after)?;
                whole.bytes(&pack::unpack(bytes).ok_or(Broken::Cut)?);
                after
            }
            _ => return Err(Broken::Cut),
        };
    }
    Ok(match whole {
        Whole::Cut(bytes) => bytes,
        Whole::Bundle(bundle) => bundle.done(),
    })
}

enum Whole {
    Cut(Vec<u8>),
    Bundle(bundle::Writer),
}

impl Whole {
    fn bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::Cut(whole) => whole.extend_from_slice(bytes),
            Self::Bundle(bundle) => bundle.head(bytes),
        }
    }

    fn value(&mut self, name: &Name, value: &[u8]) {
        match self {
            Self::Cut(whole) => whole.extend_from_slice(value),
            Self::Bundle(bundle) => bundle.piece(name, value),
        }
    }
}

/// Bytes behind their length, and what follows them.
pub(super) fn counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), Broken> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Broken::Cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Broken::Cut)?;
    rest.split_at_checked(length).ok_or(Broken::Cut)
}
