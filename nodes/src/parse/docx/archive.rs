//! The parts of a package, inflated under guard. Names of entries are only compared, never used as paths.

use std::io::{Cursor, Read};

use zip::{ZipArchive, result::ZipError};

use super::{super::text_of_xml, Limit, ParseError, ParseLimits, over};

pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    part_bytes_max: usize,
    bytes_max: usize,
    inflated: usize,
}

impl<'a> Archive<'a> {
    pub(super) fn open(bytes: &'a [u8], limits: &ParseLimits) -> Result<Self, ParseError> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| ParseError::corrupt(error.to_string()))?;
        if zip.len() > limits.archive_entries_max {
            return Err(over(Limit::ArchiveEntries(limits.archive_entries_max)));
        }
        let ParseLimits {
            part_bytes_max,
            archive_bytes_max: bytes_max,
            ..
        } = *limits;
        Ok(Self {
            zip,
            part_bytes_max,
            bytes_max,
            inflated: 0,
        })
    }

    /// A part as text, `None` if it is not there. What it says of its own size is not believed: bytes are counted as
    /// they come.
    pub(super) fn part(&mut self, name: &str) -> Result<Option<String>, ParseError> {
        let part = match self.zip.by_name(name) {
            Ok(part) => part,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(ZipError::UnsupportedArchive(reason)) if reason == ZipError::PASSWORD_REQUIRED => {
                return Err(ParseError::Encrypted);
            }
            Err(error) => return Err(ParseError::corrupt(error.to_string())),
        };
        let mut bytes = Vec::new();
        let guard = u64::try_from(self.part_bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let read = part.take(guard).read_to_end(&mut bytes);
        if bytes.len() > self.part_bytes_max {
            return Err(over(Limit::PartBytes(self.part_bytes_max)));
        }
        read.map_err(|error| ParseError::corrupt(error.to_string()))?;
        self.inflated += bytes.len();
        if self.inflated > self.bytes_max {
            return Err(over(Limit::ArchiveBytes(self.bytes_max)));
        }
        Ok(Some(text_of_xml(bytes)))
    }
}
