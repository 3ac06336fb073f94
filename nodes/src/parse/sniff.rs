//! What bytes are, by their first ones.

use super::ParseError;
use crate::service::FileType;

/// A PDF may have other bytes before its header, within this many.
const PDF_HEADER_WITHIN: usize = 1024;

/// First bytes that give a format away, and what to call it.
const MAGIC: &[(&[u8], &str)] = &[
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF87a", "a GIF picture"),
    (b"GIF89a", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x7fELF", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"SQLite format 3\0", "a database"),
    (b"OggS", "a sound or film"),
    (b"ID3", "a sound"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS-Adobe", "a PostScript document"),
];

/// Refuses bytes that are not what they are declared to be. Between text and CSV the declared type decides.
pub(super) fn check(bytes: &[u8], declared: FileType) -> Result<(), ParseError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(ParseError::Empty);
    }
    match found(bytes) {
        Found::Pdf if declared == FileType::Pdf => Ok(()),
        Found::Zip if declared == FileType::Docx => Ok(()),
        Found::Pdf => Err(mismatch(declared, "a PDF")),
        Found::Zip if declared == FileType::Pdf => Err(mismatch(declared, "a Word document or a zip archive")),
        Found::Zip => Err(mismatch(declared, "a zip archive")),
        Found::Ole { locked: true } if declared == FileType::Docx => Err(ParseError::Encrypted),
        Found::Ole { .. } => Err(unsupported("an old Office document (doc, xls or ppt)")),
        Found::Other(name) => Err(mismatch(declared, name)),
        Found::Unknown => match declared {
            FileType::Txt | FileType::Csv => Ok(()),
            FileType::Pdf | FileType::Docx if bytes.trim_ascii().is_empty() => Err(ParseError::Empty),
            FileType::Pdf | FileType::Docx if looks_like_html(bytes) => Err(mismatch(declared, "a web page")),
            FileType::Pdf | FileType::Docx => Err(mismatch(declared, "something else")),
        },
    }
}

enum Found {
    Pdf,
    Zip,
    /// The container of old Office documents, and of new ones with a password.
    Ole {
        locked: bool,
    },
    Other(&'static str),
    Unknown,
}

fn found(bytes: &[u8]) -> Found {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Found::Zip;
    }
    if bytes.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        return Found::Ole {
            locked: contains(bytes, &name),
        };
    }
    let head = bytes.get(..PDF_HEADER_WITHIN).unwrap_or(bytes);
    if head.starts_with(b"%PDF-") {
        return Found::Pdf;
    }
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Found::Other(name);
    }
    if head.starts_with(b"MZ") && head.iter().take(64).any(|byte| *byte == 0) {
        return Found::Other("a program");
    }
    if head.starts_with(b"RIFF")
        && head
            .get(8..12)
            .is_some_and(|kind| [b"WAVE", b"AVI ", b"WEBP"].iter().any(|known| kind == *known))
    {
        return Found::Other("a picture, sound or film");
    }
    if contains(head, b"%PDF-") && contains(bytes, b" obj") {
        return Found::Pdf;
    }
    Found::Unknown
}

fn looks_like_html(bytes: &[u8]) -> bool {
    let head = bytes
        .trim_ascii_start()
        .get(..64)
        .unwrap_or(bytes.trim_ascii_start())
        .to_ascii_lowercase();
    [b"<!doctype html".as_slice(), b"<html", b"<head", b"<body"]
        .iter()
        .any(|tag| head.starts_with(tag))
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn mismatch(declared: FileType, found: &str) -> ParseError {
    ParseError::TypeMismatch {
        declared: declared.as_str().to_owned(),
        found: found.to_owned(),
    }
}

fn unsupported(found: &str) -> ParseError {
    ParseError::UnsupportedType {
        found: found.to_owned(),
    }
}
