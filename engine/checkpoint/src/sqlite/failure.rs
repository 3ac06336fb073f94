//! What SQLite says, in the words of [`CheckpointError`].

use sqlx::migrate::MigrateError;
use stepgraph::{CheckpointError, ThreadKey};

pub(super) use crate::row::{corrupt, unavailable};

// Primary result codes, https://sqlite.org/rescode.html.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IO: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;
const NOT_A_DATABASE: i32 = 26;

/// The low byte of the extended code that sqlx passes on.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// Whether somebody else has the file to themselves.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(BUSY)
}

/// A failure on a thread's rows.
pub(super) fn on(key: &ThreadKey) -> impl Fn(sqlx::Error) -> CheckpointError {
    move |error| match (&error, primary_code(&error)) {
        (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) | (_, Some(CORRUPT)) => {
            corrupt(key, error.to_string())
        }
        _ => anywhere(error),
    }
}

/// A failure that is no single thread's.
pub(super) fn anywhere(error: sqlx::Error) -> CheckpointError {
    let remedy = match primary_code(&error) {
        Some(FULL) => {
            return CheckpointError::Full {
                message: error.to_string(),
            };
        }
        Some(BUSY | LOCKED) => "another process keeps the file locked: let it finish, or raise `busy_timeout`",
        Some(READONLY) => "make the file and its folder writable for this process",
        Some(IO) => "check the disk",
        Some(CORRUPT) => "the file is damaged: restore it from a backup",
        Some(CANNOT_OPEN) => "check that the path is a file in a folder that this process may write to",
        Some(NOT_A_DATABASE) => "the file is no SQLite database: choose another path",
        _ if matches!(error, sqlx::Error::PoolTimedOut) => "every reader is in use: raise `readers_max`",
        _ => "try again",
    };
    unavailable(format!("{error}; {remedy}"), Some(Box::new(error)))
}

/// The tables could not be made or brought up to date.
pub(super) fn migration(error: MigrateError) -> CheckpointError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => anywhere(error),
        MigrateError::VersionMissing(version) => unavailable(
            format!(
                "the file has tables of a later release (version {version}); run that release, or choose another path"
            ),
            None,
        ),
        other => unavailable(
            format!("the tables of the file cannot be brought up to date: {other}; restore a backup"),
            Some(Box::new(other)),
        ),
    }
}
