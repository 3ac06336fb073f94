//! How values stand in `SQLite`, and what its errors mean.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::migrate::MigrateError;

use crate::service::ServiceError;

pub(super) const SERVICE: &str = "records";

/// `SQLite`'s primary result codes that have a remedy of their own.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READ_ONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const NOT_A_DATABASE: i32 = 26;

/// A time as text of fixed width, to the microsecond.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The time that a text stands for.
pub(super) fn read_time(text: &str) -> Result<DateTime<Utc>, ServiceError> {
    DateTime::parse_from_rfc3339(text)
        .map(|at| at.with_timezone(&Utc))
        .map_err(|error| corrupt(format!("`{text}` is not a time: {error}")))
}

/// A count as `SQLite`'s integer. What is larger than it can hold is held at its largest: no such count exists.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How many things a collection holds, as a count.
pub(super) fn changed(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A count read back.
pub(super) fn count<T: TryFrom<i64>>(column: &'static str, value: i64) -> Result<T, ServiceError> {
    T::try_from(value).map_err(|_| corrupt(format!("column `{column}` holds {value}")))
}

/// A value as JSON text.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, ServiceError> {
    serde_json::to_string(value).map_err(|error| corrupt(format!("a value has no JSON form: {error}")))
}

/// A value out of JSON text.
pub(super) fn read_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T, ServiceError> {
    serde_json::from_str(text).map_err(|error| corrupt(format!("column `{column}` is not as expected: {error}")))
}

/// The wire word of a unit variant, as serde names it.
pub(super) fn word<T: Serialize>(value: &T) -> Result<String, ServiceError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(corrupt(format!("a value has no word: {other:?}"))),
    }
}

/// The variant that a wire word names.
pub(super) fn read_word<T: DeserializeOwned>(column: &'static str, word: &str) -> Result<T, ServiceError> {
    serde_json::from_value(serde_json::Value::String(word.to_owned()))
        .map_err(|error| corrupt(format!("column `{column}` holds `{word}`: {error}")))
}

pub(super) fn corrupt(message: String) -> ServiceError {
    ServiceError::Corrupt {
        service: SERVICE,
        message,
    }
}

/// What an error of the driver means for the caller.
pub(super) fn database(error: sqlx::Error) -> ServiceError {
    let unavailable = |message: String, error| ServiceError::Unavailable {
        service: SERVICE,
        message,
        source: Some(Box::new(error)),
    };
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok());
    match (code.map(|extended| extended & 0xff), &error) {
        (Some(BUSY | LOCKED), _) => unavailable(
            "another process holds the database: stop it or use another data folder".to_owned(),
            error,
        ),
        (Some(FULL), _) => unavailable("the disk is full: free some space".to_owned(), error),
        (Some(READ_ONLY), _) => unavailable(
            "the database may not be written: check the data folder's permissions".to_owned(),
            error,
        ),
        (Some(CORRUPT | NOT_A_DATABASE), _) => {
            corrupt(format!("the database is damaged, restore it from a backup: {error}"))
        }
        (_, sqlx::Error::PoolTimedOut) => unavailable("all connections are busy: try again".to_owned(), error),
        (_, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_)) => {
            corrupt(error.to_string())
        }
        _ => unavailable(format!("the database failed: {error}"), error),
    }
}

/// What an error of the migrations means for the caller.
pub(super) fn migration(error: MigrateError) -> ServiceError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => database(error),
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::VersionTooNew(..) => {
            ServiceError::Mismatch {
                service: SERVICE,
                message: format!(
                    "the database was written by another version of the program, use that one or a new data folder: {error}"
                ),
            }
        }
        other => ServiceError::Unavailable {
            service: SERVICE,
            message: "the tables could not be brought up to date".to_owned(),
            source: Some(Box::new(other)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_times_sort_as_text_and_keep_microseconds() {
        let at = |micros| DateTime::from_timestamp_micros(micros).unwrap();

        assert!(time(at(1_000_000)) < time(at(1_000_001)));
        assert_eq!(time(at(5)).len(), time(at(1_763_000_000_123_456)).len());
        assert_eq!(
            read_time(&time(at(1_763_000_000_123_456))).unwrap(),
            at(1_763_000_000_123_456)
        );
    }

    #[test]
    fn a_negative_count_is_corrupt_and_names_its_column() {
        let error = count::<u64>("version", -1).unwrap_err();

        assert_eq!(
            error.to_string(),
            "records returned unreadable data: column `version` holds -1"
        );
    }
}
