//! How values stand in PostgreSQL, and what its errors mean.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::migrate::MigrateError;

use crate::service::ServiceError;

pub(super) const SERVICE: &str = "records";

/// PostgreSQL keeps no zero character in a text.
const ZERO: char = '\0';
const INSTEAD_OF_ZERO: &str = "\u{fffd}";

/// A text as it can be kept.
pub(super) fn text(text: &str) -> String {
    text.replace(ZERO, INSTEAD_OF_ZERO)
}

fn clean(value: Value) -> Value {
    match value {
        Value::String(one) => Value::String(text(&one)),
        Value::Array(all) => all.into_iter().map(clean).collect(),
        Value::Object(all) => all.into_iter().map(|(key, value)| (text(&key), clean(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// A value as JSON that can be kept.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Value, ServiceError> {
    serde_json::to_value(value)
        .map(clean)
        .map_err(|error| corrupt(format!("a value has no JSON form: {error}")))
}

/// A value out of JSON.
pub(super) fn read_json<T: DeserializeOwned>(column: &'static str, value: Value) -> Result<T, ServiceError> {
    serde_json::from_value(value).map_err(|error| corrupt(format!("column `{column}` is not as expected: {error}")))
}

/// The wire word of a unit variant, as serde names it.
pub(super) fn word<T: Serialize>(value: &T) -> Result<String, ServiceError> {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => Ok(word),
        other => Err(corrupt(format!("a value has no word: {other:?}"))),
    }
}

/// The variant that a wire word names.
pub(super) fn read_word<T: DeserializeOwned>(column: &'static str, word: &str) -> Result<T, ServiceError> {
    serde_json::from_value(Value::String(word.to_owned()))
        .map_err(|error| corrupt(format!("column `{column}` holds `{word}`: {error}")))
}

/// A count as `bigint`. What is larger than it can hold is held at its largest: no such count exists.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The same for `integer`, which the shared tables use.
pub(super) fn small(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A count read back.
pub(super) fn count<T: TryFrom<i64>>(column: &'static str, value: impl Into<i64>) -> Result<T, ServiceError> {
    let value = value.into();
    T::try_from(value).map_err(|_| corrupt(format!("column `{column}` holds {value}")))
}

/// A stored time; all of them are UTC.
pub(super) const fn time(at: NaiveDateTime) -> DateTime<Utc> {
    at.and_utc()
}

pub(super) const fn corrupt(message: String) -> ServiceError {
    ServiceError::Corrupt {
        service: SERVICE,
        message,
    }
}

pub(super) const fn refused(message: String) -> ServiceError {
    ServiceError::Refused {
        service: SERVICE,
        message,
    }
}

pub(super) const fn mismatch(message: String) -> ServiceError {
    ServiceError::Mismatch {
        service: SERVICE,
        message,
    }
}

fn unavailable(message: String, error: sqlx::Error) -> ServiceError {
    ServiceError::Unavailable {
        service: SERVICE,
        message,
        source: Some(Box::new(error)),
    }
}

/// What an error of the driver means for the caller.
pub(super) fn database(error: sqlx::Error) -> ServiceError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match (code.as_deref(), &error) {
        (Some("23503"), _) => refused(format!(
            "the tenant is not in the table `clients`: add it at the Express service, or with `stepgraph tenant add \
             --write-clients` ({error})"
        )),
        (Some("42P01" | "42703"), _) => mismatch(format!(
            "a table or column is not there: start again, so that the tables are looked at anew ({error})"
        )),
        (Some("42501"), _) => refused(format!(
            "the user of DATABASE_URL has no right to do this: grant it ({error})"
        )),
        (Some("3D000"), _) => unavailable(
            "there is no such database: make the database, or name another in DATABASE_URL".to_owned(),
            error,
        ),
        (Some("28P01" | "28000"), _) => unavailable(
            "the server refuses the user or the password: check DATABASE_URL".to_owned(),
            error,
        ),
        (Some("57014"), _) => unavailable("a statement took too long and was ended: try again".to_owned(), error),
        (Some(code), _) if code.starts_with("22") || code.starts_with("23") => {
            refused(format!("the value cannot be kept: {error}"))
        }
        (_, sqlx::Error::PoolTimedOut) => unavailable(
            "all connections are busy or the server does not answer: try again".to_owned(),
            error,
        ),
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
            mismatch(format!(
                "our tables were made by another version of the program, use that one or a newer one: {error}"
            ))
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
    fn a_zero_character_is_replaced_wherever_it_stands() {
        let kept = json(&serde_json::json!({"a\0": ["b\0", 1]})).unwrap();

        assert_eq!(kept, serde_json::json!({"a\u{fffd}": ["b\u{fffd}", 1]}));
        assert_eq!(text("x\0y"), "x\u{fffd}y");
    }

    #[test]
    fn what_the_shared_columns_cannot_hold_is_held_at_their_largest() {
        assert_eq!((small(7), small(u64::MAX), integer(u64::MAX)), (7, i32::MAX, i64::MAX));
        assert!(
            count::<u64>("version", -1_i64)
                .unwrap_err()
                .to_string()
                .contains("`version` holds -1")
        );
    }
}
