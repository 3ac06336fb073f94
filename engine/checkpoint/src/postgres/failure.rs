//! What PostgreSQL says, in the words of [`CheckpointError`].

use sqlx::migrate::MigrateError;
use stepgraph::{CheckpointError, ThreadKey};

use crate::row::{corrupt, unavailable};

// SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html.
const DISK_FULL: &str = "53100";
const TOO_MANY_CONNECTIONS: &str = "53300";
const QUERY_CANCELED: &str = "57014";
const ADMIN_SHUTDOWN: &str = "57P01";
const CRASH_SHUTDOWN: &str = "57P02";
const CANNOT_CONNECT_NOW: &str = "57P03";
const NO_DATABASE: &str = "3D000";
const NO_PRIVILEGE: &str = "42501";
const READ_ONLY: &str = "25006";
const TOO_LONG_FOR_AN_INDEX: &str = "54000";
const UNIQUE: &str = "23505";
const DUPLICATE_SCHEMA: &str = "42P06";
/// Classes of codes, by their first two characters.
const CONNECTION: &str = "08";
const AUTHORIZATION: &str = "28";
const DATA_CORRUPTED: &str = "XX";

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// Whether the connection was lost, so that nobody knows what became of the call.
pub(super) fn is_lost(error: &CheckpointError) -> bool {
    let CheckpointError::Unavailable {
        source: Some(source), ..
    } = error
    else {
        return false;
    };
    let Some(error) = source.downcast_ref::<sqlx::Error>() else {
        return false;
    };
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        _ => code(error).is_some_and(|code| {
            [ADMIN_SHUTDOWN, CRASH_SHUTDOWN, CANNOT_CONNECT_NOW].contains(&code.as_str())
                || code.starts_with(CONNECTION)
        }),
    }
}

/// Whether somebody else has made the same thing at the same time.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| [UNIQUE, DUPLICATE_SCHEMA].contains(&code.as_str()))
}

/// A failure on a thread's rows.
pub(super) fn on(key: &ThreadKey) -> impl Fn(sqlx::Error) -> CheckpointError {
    move |error| match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => corrupt(key, error.to_string()),
        _ if code(&error).is_some_and(|code| code.starts_with(DATA_CORRUPTED)) => corrupt(key, error.to_string()),
        _ => anywhere(error),
    }
}

/// A failure that is no single thread's.
pub(super) fn anywhere(error: sqlx::Error) -> CheckpointError {
    let code = code(&error).unwrap_or_default();
    let remedy = match code.as_str() {
        DISK_FULL => {
            return CheckpointError::Full {
                message: error.to_string(),
            };
        }
        TOO_MANY_CONNECTIONS => "lower `connections_max`, or raise the server's `max_connections`",
        QUERY_CANCELED => "the server was busy for too long: raise `statement_timeout`, or see what keeps it",
        NO_DATABASE => "make the database, or correct its name in the URL",
        NO_PRIVILEGE => "let the user make and change tables in the schema",
        READ_ONLY => "connect to the primary server",
        TOO_LONG_FOR_AN_INDEX => {
            "the name of a task, or the key of a question or effect, is longer than PostgreSQL can find again: shorten it"
        }
        code if code.starts_with(AUTHORIZATION) => "correct the user and the password in the URL",
        _ if matches!(error, sqlx::Error::PoolTimedOut) => {
            "the server does not answer, or every connection is in use: look after the server, or raise `connections_max`"
        }
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
                "the database has tables of a later release (version {version}); run that release, or choose another schema"
            ),
            None,
        ),
        other => unavailable(
            format!("the tables of the database cannot be brought up to date: {other}; restore a backup"),
            Some(Box::new(other)),
        ),
    }
}
