//! The statements about large values.
//!
//! A value lies in `checkpoint_values` once a thread; `checkpoint_value_uses` says which rows name it. What is no longer
//! named goes in the transaction that took the last row away.

use std::{fmt::Write as _, sync::LazyLock};

use sqlx::SqliteConnection;
use stepgraph::{CheckpointError, ThreadKey, checkpoint::Seq};

use super::{about, failure};
use crate::{row::stored, value::rows::Value};

/// What checkpoints that go have named: thread and, as a list, numbers.
pub(super) const FORGET: &str =
    "DELETE FROM checkpoint_value_uses WHERE thread = ?1 AND seq IN (SELECT value FROM json_each(?2))";
/// What nobody names any more goes.
pub(super) const SWEEP: &str = "DELETE FROM checkpoint_values WHERE thread = ?1 \
    AND name NOT IN (SELECT name FROM checkpoint_value_uses WHERE thread = ?1) AND ?2 IS NOT NULL";
/// What one checkpoint has named: thread and number.
pub(super) const LET_GO: &str = "DELETE FROM checkpoint_value_uses WHERE thread = ?1 AND seq = ?2";

/// Values that one call can write. SQLite takes 32,766 bound ones in a call; more are more calls.
const SIZES: [usize; 4] = [1, 4, 16, 64];

/// Writes the values of a checkpoint that are not there yet, and that it names all of them. Without a number it is the
/// thread's head.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    seq: Option<Seq>,
    mut values: &[Value],
) -> Result<(), CheckpointError> {
    while let Some((size, text)) = TEXTS.iter().rev().find(|(size, _)| *size <= values.len()) {
        let (some, others) = values.split_at(*size);
        let mut query = about(text, key).bind(seq.map(|seq| stored(seq.0)));
        for value in some {
            query = query.bind(value.name.to_vec()).bind(value.body.clone());
        }
        query.execute(&mut *connection).await.map_err(failure::on(key))?;
        values = others;
    }
    Ok(())
}

/// The statements for so many values. They are made once. Values are named `$1`, since the second statement names some of
/// the first's again.
static TEXTS: LazyLock<Vec<(usize, &'static str)>> = LazyLock::new(|| SIZES.map(|size| (size, text(size))).into());

fn text(size: usize) -> &'static str {
    let (mut bodies, mut names) = (String::new(), String::new());
    for at in 0..size {
        let (comma, name, body) = (if at == 0 { "" } else { ", " }, 5 + 2 * at, 6 + 2 * at);
        // Writing to a string cannot fail.
        let _ = write!(bodies, "{comma}(${name}, ${body})");
        let _ = write!(names, "{comma}(${name})");
    }
    let held = "t.tenant = $1 AND t.thread = $2 AND t.namespace = $3";
    format!(
        "INSERT OR IGNORE INTO checkpoint_values (thread, name, body) \
         SELECT t.number, v.column1, v.column2 FROM checkpoint_threads t, (VALUES {bodies}) v WHERE {held}; \
         INSERT OR IGNORE INTO checkpoint_value_uses (thread, seq, name) \
         SELECT t.number, coalesce($4, t.head), v.column1 FROM checkpoint_threads t, (VALUES {names}) v WHERE {held}"
    )
    .leak()
}
