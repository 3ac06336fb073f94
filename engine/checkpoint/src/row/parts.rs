//! Several parts of a state in one row: a checkpoint that was made to stand on its own, with the deltas it grew from.

use std::sync::Arc;

use stepgraph::{CheckpointError, ThreadKey};

use super::corrupt;

/// What stands in the column of the kind for a list of parts; 0 is a delta, 1 the whole state.
pub(crate) const KIND: i64 = 2;

/// The parts, each behind its length of four bytes, the lowest first.
pub(crate) fn write(parts: &[Arc<[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // A row of four gigabytes is beyond every database.
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

pub(crate) fn read(key: &ThreadKey, mut bytes: &[u8]) -> Result<Vec<Arc<[u8]>>, CheckpointError> {
    let cut = || corrupt(key, "a list of parts is cut off");
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let (part, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        parts.push(Arc::from(part));
        bytes = rest;
    }
    if bytes.is_empty() { Ok(parts) } else { Err(cut()) }
}

#[cfg(test)]
mod tests {
    use stepgraph::{TenantId, ThreadId};

    use super::*;

    #[test]
    fn parts_are_read_as_they_were_written_and_a_cut_list_is_told() {
        let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::random());
        let parts: Vec<Arc<[u8]>> = [b"snapshot".as_slice(), b"", b"delta"].map(Arc::from).into();
        let bytes = write(&parts);

        assert_eq!(read(&key, &bytes).unwrap(), parts);
        for end in (1..bytes.len()).filter(|end| ![12, 16].contains(end)) {
            assert!(read(&key, bytes.get(..end).unwrap()).is_err(), "{end}");
        }
    }
}
