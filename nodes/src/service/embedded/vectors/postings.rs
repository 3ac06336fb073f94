//! How the inverted index is packed: entries of eight bytes, [`BLOCK_CHUNKS`] neighbouring chunk ids a row.

/// Chunk ids that share a row. A full row then fits in one database page, so that one more chunk rewrites one page a
/// term, and a term that every one of 100,000 chunks holds is read in 400 rows.
pub(super) const BLOCK_CHUNKS: u32 = 1 << u8::BITS;

/// The same as a length.
pub(super) const BLOCK_SLOTS: usize = 1 << u8::BITS;

const ENTRY_BYTES: usize = 8;

/// One term in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Posting {
    /// Position of the chunk in its block, below [`BLOCK_CHUNKS`].
    pub(super) slot: u16,
    /// How often the term occurs in the chunk.
    pub(super) occurrences: u16,
    /// How many terms the chunk has in all.
    pub(super) length: u32,
}

impl Posting {
    /// The bytes of this entry.
    pub(super) fn pack(self) -> [u8; ENTRY_BYTES] {
        let packed = u64::from(self.slot) | u64::from(self.occurrences) << 16 | u64::from(self.length) << 32;
        packed.to_le_bytes()
    }

    fn unpack(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [slot_low, slot_high, occurrences_low, occurrences_high, length @ ..] = bytes;
        Self {
            slot: u16::from_le_bytes([slot_low, slot_high]),
            occurrences: u16::from_le_bytes([occurrences_low, occurrences_high]),
            length: u32::from_le_bytes(length),
        }
    }
}

/// The block of a chunk and its slot there.
pub(super) fn place(chunk: u32) -> (u32, u16) {
    let [low, ..] = chunk.to_le_bytes();
    (chunk / BLOCK_CHUNKS, u16::from(low))
}

/// The chunk at a slot of a block.
pub(super) fn chunk_at(block: u32, slot: u16) -> u32 {
    block.saturating_mul(BLOCK_CHUNKS).saturating_add(u32::from(slot))
}

/// How many entries a row has.
pub(super) fn count(entries: &[u8]) -> u64 {
    u64::try_from(entries.len() / ENTRY_BYTES).unwrap_or(u64::MAX)
}

/// The entries of a row.
pub(super) fn unpack(entries: &[u8]) -> impl Iterator<Item = Posting> + '_ {
    entries
        .as_chunks::<ENTRY_BYTES>()
        .0
        .iter()
        .map(|bytes| Posting::unpack(*bytes))
}

/// A row without the entries of some slots.
pub(super) fn without(entries: &[u8], slots: &[u16]) -> Vec<u8> {
    let kept = unpack(entries).filter(|entry| !slots.contains(&entry.slot));
    kept.flat_map(Posting::pack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_unpacks_to_what_was_packed_and_loses_only_the_slots_named() {
        let entries = [(0, 1, 7), (3, 65_535, 1), (255, 2, u32::MAX)].map(|(slot, occurrences, length)| Posting {
            slot,
            occurrences,
            length,
        });
        let row: Vec<u8> = entries.into_iter().flat_map(Posting::pack).collect();
        assert_eq!(count(&row), 3);
        assert_eq!(unpack(&row).collect::<Vec<_>>(), entries);
        assert_eq!(
            unpack(&without(&row, &[3, 9]))
                .map(|entry| entry.slot)
                .collect::<Vec<_>>(),
            [0, 255]
        );
    }

    #[test]
    fn a_chunk_is_found_where_it_was_placed() {
        for chunk in [0, 1, 255, 256, 257, 1_000_003, u32::MAX] {
            let (block, slot) = place(chunk);
            assert_eq!(chunk_at(block, slot), chunk);
        }
    }
}
