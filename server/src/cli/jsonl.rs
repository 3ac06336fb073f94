//! Files with one JSON value a line, read line by line.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::CliError;

/// Longest line read: one document's text with room to spare.
const LINE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The values of a `.jsonl` file in their order; blank lines are passed over.
#[derive(Debug)]
pub(super) struct Lines<T> {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
    expected: &'static str,
    values: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// Opens the file; `expected` says what each line should be.
    pub(super) fn open(path: &Path, expected: &'static str) -> Result<Self, CliError> {
        let file = File::open(path).map_err(|source| CliError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            number: 0,
            expected,
            values: PhantomData,
        })
    }

    /// The next value and the number of its line, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, T)>, CliError> {
        loop {
            let mut line = String::new();
            self.number += 1;
            let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
            match read.map_err(|source| CliError::Unreadable {
                path: self.path.clone(),
                source,
            })? {
                0 => return Ok(None),
                _ if line.trim().is_empty() => {}
                length if u64::try_from(length).is_ok_and(|length| length >= LINE_BYTES_MAX) => {
                    return Err(self.wrong(format!("longer than {} MiB: split the document", LINE_BYTES_MAX >> 20)));
                }
                _ => {
                    let value = serde_json::from_str(line.trim()).map_err(|error| self.wrong(error.to_string()))?;
                    return Ok(Some((self.number, value)));
                }
            }
        }
    }

    fn wrong(&self, message: String) -> CliError {
        CliError::Line {
            path: self.path.clone(),
            line: self.number,
            expected: self.expected,
            message,
        }
    }
}
