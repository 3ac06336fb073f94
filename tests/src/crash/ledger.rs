//! What has really happened in the world: a file that outlives every process, with one line for each thing, in order.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub(super) struct Ledger(PathBuf);

impl Ledger {
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Writes a line, whole and at once: it is there even if the process is killed right behind it.
    pub(super) fn write(&self, what: &str, of: &str) {
        let line = format!("{what} {of}\n");
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            // A ledger that leaves things out would let a broken engine pass.
            eprintln!("the ledger {} cannot be written: {error}", self.0.display());
            std::process::abort();
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    pub(super) fn has(&self, line: &str) -> bool {
        self.lines().iter().any(|found| found == line)
    }
}
