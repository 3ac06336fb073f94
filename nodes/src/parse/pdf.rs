//! The text of a PDF, page by page. Runs in the worker process only.
//!
//! The reader underneath ([`hayro_syntax`], [`hayro_font`]) finds objects, inflates streams and knows what a glyph
//! means; running the pages' instructions ([`interpret`]) and putting glyphs into lines ([`layout`]) is ours, so that
//! every loop is counted against [`ParseLimits`]. Why this reader: `docs/adr/0003-pdf-core.md`.

mod cids;
mod interpret;
mod layout;
mod marked;

use hayro_syntax::{LoadPdfError, Pdf, object::Dict};

use self::{interpret::Interpreter, marked::Layers};
use super::{Limit, ParseError, ParseLimits, Parsed, hygiene};
use crate::service::FileType;

/// A document whose pages all have fewer characters than this is a scan.
const PAGE_CHARACTERS_MIN: usize = 10;

/// The text of a document, its pages kept apart.
pub(super) fn parse(bytes: Vec<u8>, limits: &ParseLimits) -> Result<Parsed, ParseError> {
    if bytes.len() > limits.upload_bytes_max {
        return Err(ParseError::LimitExceeded(Limit::UploadBytes(limits.upload_bytes_max)));
    }
    if is_encrypted(&bytes) {
        return Err(ParseError::Encrypted);
    }
    let pdf = Pdf::new(bytes).map_err(|error| match error {
        LoadPdfError::Decryption(_) => ParseError::Encrypted,
        LoadPdfError::Invalid => ParseError::corrupt("its structure cannot be read"),
    })?;
    let pages = pdf.pages();
    if pages.is_empty() {
        return Err(ParseError::corrupt("it has no pages"));
    }
    if pages.len() > limits.pages_max {
        return Err(ParseError::LimitExceeded(Limit::Pages(limits.pages_max)));
    }
    let catalog = pdf.xref().get::<Dict<'_>>(pdf.xref().root_id());
    let mut interpreter = Interpreter::new(limits, Layers::of_catalog(catalog.as_ref()));
    let mut parsed = Parsed {
        file_type: FileType::Pdf,
        text: String::new(),
        pages: Vec::new(),
        records: None,
    };
    let (mut longest, mut unread) = (0, false);
    for page in pages.iter() {
        let glyphs = interpreter.page(page)?;
        let text = hygiene::clean(layout::text(&glyphs));
        let text = text.trim();
        longest = longest.max(text.chars().filter(|c| !c.is_whitespace()).count());
        unread |= page.page_stream().is_none() && page.raw().contains_key("Contents");
        if !parsed.text.is_empty() {
            parsed.text.push_str("\n\n");
        }
        let start = parsed.text.len();
        parsed.text.push_str(text);
        parsed.pages.push(start..parsed.text.len());
        if parsed.text.len() > limits.text_bytes_max {
            return Err(ParseError::LimitExceeded(Limit::TextBytes(limits.text_bytes_max)));
        }
    }
    match longest {
        0 if unread => Err(ParseError::corrupt("the content of its pages is missing")),
        0..PAGE_CHARACTERS_MIN => Err(ParseError::NoText),
        _ => Ok(parsed),
    }
}

/// Whether the document's trailer names an encryption dictionary. Asked before the reader is, which would open a
/// document whose password is empty: its owner has locked it all the same.
fn is_encrypted(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"/Encrypt";
    bytes
        .windows(KEY.len())
        .enumerate()
        .filter(|(_, window)| *window == KEY)
        .any(|(at, _)| {
            let after = bytes.get(at + KEY.len()..).unwrap_or_default();
            let value = after.trim_ascii_start();
            // A reference (`12 0 R`) or the dictionary itself; `/EncryptMetadata` is neither.
            value.starts_with(b"<<") || (value.first().is_some_and(u8::is_ascii_digit) && is_reference(value))
        })
}

fn is_reference(value: &[u8]) -> bool {
    let mut words = value
        .get(..32)
        .unwrap_or(value)
        .split(|byte| !byte.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let number = |word: Option<&[u8]>| word.is_some_and(|word| word.iter().all(u8::is_ascii_digit));
    number(words.next()) && number(words.next()) && words.next().is_some_and(|word| word.starts_with(b"R"))
}
