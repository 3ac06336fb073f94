//! What every store of rows writes alike, whatever its driver: words, numbers and complaints.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod decode;
pub(crate) mod names;
#[cfg(feature = "sqlite")]
pub(crate) mod parts;

use stepgraph::{CheckpointError, ThreadKey, checkpoint::Seq};

/// A number as databases keep it, which have no unsigned ones. One beyond their range can be no stored one, and finds
/// nothing.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn stored_seq(key: &ThreadKey, seq: i64) -> Result<Seq, CheckpointError> {
    let seq = u64::try_from(seq).map_err(|_| corrupt(key, format!("a checkpoint of the number {seq}")))?;
    Ok(Seq(seq))
}

/// Rows of a thread that make no sense.
pub(crate) fn corrupt(key: &ThreadKey, message: impl Into<String>) -> CheckpointError {
    CheckpointError::Corrupt {
        key: key.clone(),
        message: message.into(),
    }
}

pub(crate) fn unavailable(
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> CheckpointError {
    CheckpointError::Unavailable { message, source }
}

pub(crate) fn no_checkpoint(key: &ThreadKey, seq: Seq) -> CheckpointError {
    CheckpointError::NoCheckpoint { key: key.clone(), seq }
}

/// Whether the store was asked for what the thread does not allow, and is itself well.
#[cfg(feature = "sqlite")]
pub(crate) const fn is_refusal(error: &CheckpointError) -> bool {
    matches!(
        error,
        CheckpointError::Conflict { .. }
            | CheckpointError::Fenced { .. }
            | CheckpointError::NoCheckpoint { .. }
            | CheckpointError::InUse { .. }
    )
}
