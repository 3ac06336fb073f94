//! Searches and embeddings that are kept for a while.

mod embedder;
mod vectors;

pub use embedder::CachedEmbedder;
pub use vectors::CachedVectors;

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// What tells one question from another inside a key, of one length whatever it is made of. Each part is preceded by its
/// length, so that no two lists of parts are one.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}
