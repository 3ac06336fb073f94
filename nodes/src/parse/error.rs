//! Why a document cannot be read, in words for its owner.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing in it.
    #[error("the file is empty: check that it was saved and uploaded whole")]
    Empty,
    /// Not readable as what it is.
    #[error("the file is damaged ({reason}): open it in the program it was made with, save it again and upload that")]
    Corrupt {
        /// What did not fit.
        reason: String,
    },
    /// Locked with a password or a permission.
    #[error("the file is encrypted: remove its password or protection and upload it again")]
    Encrypted,
    /// Something else than its type says.
    #[error("the file says it is {declared} but it is {found}: upload it with its own type, or convert it")]
    TypeMismatch {
        /// The type it was uploaded as.
        declared: String,
        /// What the bytes are.
        found: String,
    },
    /// Of a type that is not read.
    #[error("the file is {found}, which cannot be read: convert it to pdf, docx, txt or csv")]
    UnsupportedType {
        /// What the bytes are.
        found: String,
    },
    /// In letters that cannot be told.
    #[error("the text's encoding cannot be told, or it is not text: save it as UTF-8 and upload it again")]
    UnsupportedEncoding,
    /// Readable, but without a word.
    #[error("no text was found: a scan or a picture must be run through text recognition (OCR) first")]
    NoText,
    /// Over a limit.
    #[error("{0}")]
    LimitExceeded(Limit),
    /// The reading program could not be started or spoken to. The document is not to blame; trying again may help.
    #[error("the PDF reading program did not work ({reason}): try again, and tell the operator if it stays so")]
    WorkerUnavailable {
        /// What went wrong.
        reason: String,
    },
}

impl ParseError {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Corrupt { .. } => "corrupt",
            Self::Encrypted => "encrypted",
            Self::TypeMismatch { .. } => "type_mismatch",
            Self::UnsupportedType { .. } => "unsupported_type",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::NoText => "no_text",
            Self::LimitExceeded(_) => "limit_exceeded",
            Self::WorkerUnavailable { .. } => "worker_unavailable",
        }
    }

    /// Whether the same file may be read at another time.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::WorkerUnavailable { .. })
    }

    pub(super) fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt { reason: reason.into() }
    }
}

/// Which limit a document is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Limit {
    /// The upload is too large.
    #[error("the file is larger than {} MiB: split it, or make it smaller", .0 >> 20)]
    UploadBytes(usize),
    /// A part inflates too far.
    #[error("a part of the file unpacks to more than {} MiB: split the document", .0 >> 20)]
    PartBytes(usize),
    /// All parts inflate too far.
    #[error("the file unpacks to more than {} MiB: split the document", .0 >> 20)]
    ArchiveBytes(usize),
    /// Too many entries.
    #[error("the file holds more than {0} parts: save the document without its attachments")]
    ArchiveEntries(usize),
    /// Nested too deep.
    #[error("the file nests its parts too deep: save the document in a simpler form, for example as plain text")]
    Depth,
    /// Too many cells.
    #[error("the table has more than {0} cells: split it into several files")]
    Cells(usize),
    /// Too many pages.
    #[error("the document has more than {0} pages: split it into several files")]
    Pages(usize),
    /// Too much text.
    #[error("the document holds more than {} MB of text: split it into several files", .0 / 1_000_000)]
    TextBytes(usize),
    /// Too much drawing.
    #[error("the document's pages are drawn in more than {0} operations: print it to a new PDF, or upload its text")]
    Operations(u64),
    /// Took too long.
    #[error("reading the document took more than {} seconds: split it, or print it to a new PDF", .0.as_secs())]
    Time(Duration),
    /// Took too much memory.
    #[error("reading the document took more than {} MiB of memory: split it, or print it to a new PDF", .0 >> 20)]
    Memory(u64),
}
