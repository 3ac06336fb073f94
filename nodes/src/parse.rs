//! Reading text out of files.
//!
//! [`parse_bytes`] takes an upload and the type its owner gave it, and answers with [`Parsed`] text or a [`ParseError`]
//! in words the owner can act on. What the bytes are decides, not what the file is called (`sniff`).
//!
//! | type | read by | where |
//! |---|---|---|
//! | PDF | `pdf` | a child process of our own binary (`worker`): no PDF reader is trusted with a server's memory |
//! | DOCX | `docx` | a blocking thread |
//! | TXT | `text` | a blocking thread |
//! | CSV | `csv` | a blocking thread |
//!
//! Each is held to [`ParseLimits`]. Text leaves through `hygiene`.

mod csv;
mod docx;
mod error;
mod hygiene;
mod limits;
mod pdf;
mod sniff;
mod text;
mod worker;

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};

pub use self::{
    error::{Limit, ParseError},
    limits::ParseLimits,
    worker::{PdfWorker, run_worker_if_asked},
};
use crate::service::FileType;

/// The text of a document and what is known of its shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parsed {
    /// What the document is.
    pub file_type: FileType,
    /// All of its text.
    pub text: String,
    /// Where each page lies in `text`, in bytes; empty for types without pages.
    pub pages: Vec<Range<usize>>,
    /// The rows, for CSV.
    pub records: Option<Table>,
}

impl Parsed {
    /// The page, counted from 1, that holds a byte of the text; `None` for types without pages.
    #[must_use]
    pub fn page_at(&self, byte: usize) -> Option<usize> {
        let next = self.pages.partition_point(|page| page.start <= byte);
        (next > 0).then_some(next)
    }
}

/// Rows under a header, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Names of the columns as they stand in the file; two may be the same.
    pub header: Vec<String>,
    /// The rows below it.
    pub rows: Vec<Row>,
}

impl Table {
    /// Each row as its columns' names and values, in order.
    pub fn records(&self) -> impl Iterator<Item = impl Iterator<Item = (&str, &str)>> {
        self.rows.iter().map(|row| {
            self.header
                .iter()
                .map(String::as_str)
                .chain(std::iter::repeat(""))
                .zip(row.values.iter().map(String::as_str))
        })
    }
}

/// One row of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its cells; a ragged row has fewer or more than the header.
    pub values: Vec<String>,
    /// Where the row lies in [`Parsed::text`], in bytes.
    pub at: Range<usize>,
}

/// Reads an upload that is said to be of type `declared`.
///
/// # Cancel safety
/// Dropping the future kills the PDF worker; a DOCX, TXT or CSV runs to its end on its blocking thread and is forgotten.
pub async fn parse_bytes(worker: &PdfWorker, declared: FileType, bytes: Vec<u8>) -> Result<Parsed, ParseError> {
    let limits = *worker.limits();
    if bytes.len() > limits.upload_bytes_max {
        return Err(ParseError::LimitExceeded(Limit::UploadBytes(limits.upload_bytes_max)));
    }
    sniff::check(&bytes, declared)?;
    if declared == FileType::Pdf {
        return worker.read(bytes).await;
    }
    tokio::task::spawn_blocking(move || match declared {
        FileType::Docx => docx::parse(&bytes, &limits),
        FileType::Csv => csv::parse(&bytes, &limits),
        FileType::Txt | FileType::Pdf => text::parse(&bytes, &limits),
    })
    .await
    .unwrap_or_else(|stopped| {
        Err(ParseError::Corrupt {
            reason: format!("reading it stopped: {stopped}"),
        })
    })
}

/// The text of an XML part: UTF-8, or UTF-16 with its mark.
fn text_of_xml(bytes: Vec<u8>) -> String {
    match encoding_rs::Encoding::for_bom(&bytes) {
        Some((encoding, mark)) => encoding
            .decode_without_bom_handling(bytes.get(mark..).unwrap_or_default())
            .0
            .into_owned(),
        None => String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The type that a file's extension declares.
#[must_use]
pub fn declared_type(path: &Path) -> Option<FileType> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    [FileType::Pdf, FileType::Docx, FileType::Txt, FileType::Csv]
        .into_iter()
        .find(|known| known.as_str() == extension)
}
