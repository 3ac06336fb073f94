//! How much one document may ask of us.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that bounds the reading of one document. Reaching one is a [`ParseError`](super::ParseError) that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParseLimits {
    /// Size of the upload.
    pub upload_bytes_max: usize,
    /// One part of a DOCX, inflated.
    pub part_bytes_max: usize,
    /// All parts of a DOCX that are read, inflated.
    pub archive_bytes_max: usize,
    /// Entries of a DOCX archive.
    pub archive_entries_max: usize,
    /// Elements inside elements in a DOCX.
    pub xml_depth_max: usize,
    /// Cells of a CSV.
    pub cells_max: usize,
    /// Pages of a PDF.
    pub pages_max: usize,
    /// Text that comes out.
    pub text_bytes_max: usize,
    /// Drawing instructions of a PDF.
    pub operations_max: u64,
    /// Drawings inside drawings of a PDF, counted each time they are used.
    pub forms_max: u64,
    /// Time from start to end of a PDF's worker.
    pub wall: Duration,
    /// Processor time of a PDF's worker, in whole seconds.
    pub cpu: Duration,
    /// Address space of a PDF's worker.
    pub memory_bytes_max: u64,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self {
            upload_bytes_max: 10 << 20,
            part_bytes_max: 64 << 20,
            archive_bytes_max: 128 << 20,
            archive_entries_max: 10_000,
            xml_depth_max: 256,
            cells_max: 2_000_000,
            pages_max: 5_000,
            text_bytes_max: 20_000_000,
            operations_max: 20_000_000,
            forms_max: 50_000,
            wall: Duration::from_secs(30),
            cpu: Duration::from_secs(20),
            memory_bytes_max: 1 << 30,
        }
    }
}
