//! Compression: LZ4, where it makes shorter.

/// The one byte that no value of `MessagePack` begins with: what begins so is sealed, or a bundle.
pub(crate) const NO_VALUE: u8 = 0xc1;
/// What is shorter is kept as it is: little would be won.
const PACKED_OVER: usize = 256;
/// What is longer is kept as it is, and what says that it unpacks to more is refused before anything is allocated.
const UNPACKED_MAX: usize = 256 << 20;

/// Compresses, if that makes it shorter.
pub(crate) fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    if !(PACKED_OVER..=UNPACKED_MAX).contains(&plain.len()) {
        return None;
    }
    let packed = lz4_flex::block::compress_prepend_size(plain);
    (packed.len() < plain.len()).then_some(packed)
}

/// Refuses what says that it is longer than anything that was ever packed, and what is shorter than it says.
pub(crate) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let (length, body) = packed.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > UNPACKED_MAX {
        return None;
    }
    let plain = lz4_flex::block::decompress(body, length).ok()?;
    // What is cut off where a piece of it ends unpacks too.
    (plain.len() == length).then_some(plain)
}
