//! Why the program cannot start or go on: one sentence each, with the remedy.

use std::{io, path::PathBuf};

use stepgraph::{BuildErrors, CheckpointError};
use stepgraph_nodes::service::ServiceError;

use crate::config::SettingsError;

/// Why the data folder, the settings or a service cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// Settings are wrong; all of them are listed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Another process holds the data folder.
    #[error("the data folder {} is in use by {holder}: stop it first, or name another folder with --data", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// What the holder says about itself.
        holder: String,
    },
    /// There is no such folder, and this command does not make one.
    #[error("there is no data folder at {}: make one with `stepgraph demo` or `stepgraph tenant add`, or name another with --data", path.display())]
    NoFolder {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The folder cannot be made or written.
    #[error("the data folder {} cannot be used ({source}): give this user the right to write there, or name another folder with --data", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// No room is left on the disk.
    #[error("the disk of the data folder {} is full{}: free at least {} MB, or name a folder on another disk with --data",
        path.display(),
        free.map(|bytes| format!(" ({} MB left)", bytes / 1_000_000)).unwrap_or_default(),
        super::FREE_BYTES_MIN / 1_000_000)]
    DiskFull {
        /// The folder.
        path: PathBuf,
        /// Bytes left, where known.
        free: Option<u64>,
    },
    /// A database file cannot be opened.
    #[error("the database {} cannot be opened ({message}): {remedy}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What the driver says.
        message: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The system does not say where this program lies, so that it cannot be started as a worker.
    #[error("this program cannot find itself to read PDFs ({source}): start it by its full path")]
    Program {
        /// The system's own error.
        source: io::Error,
    },
    /// The checkpoints cannot be opened.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// A graph does not hold together.
    #[error(transparent)]
    Graph(#[from] BuildErrors),
    /// A service did not do its part.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl AppError {
    /// Puts a failure to open `path` in words.
    pub(crate) fn from_database(path: PathBuf, error: &sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok());
        // The low byte is SQLite's primary result code.
        match code.map(|code| code & 0xff) {
            Some(13) => Self::DiskFull { path, free: None },
            Some(11 | 26) => {
                let remedy = "the file is damaged or is not ours; put it aside or bring back a copy";
                Self::Database {
                    path,
                    message: error.to_string(),
                    remedy,
                }
            }
            _ => {
                let remedy = "give this user the right to read and write it, or name another folder with --data";
                Self::Database {
                    path,
                    message: error.to_string(),
                    remedy,
                }
            }
        }
    }
}
