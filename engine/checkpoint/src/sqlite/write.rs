//! The statements that change a thread, each inside a [`Turn`](super::writer::Turn).
//!
//! Of a statement that gives a row back, sqlx reads that row and no further, and so never hears whether an automatic
//! commit behind it failed. Here that cannot hide a loss: all of them stand inside a transaction, whose `COMMIT` is
//! waited for.

use sqlx::{Row, SqliteConnection};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Commit, Epoch, OutboxMessage, Seq, TaskRecord},
};
use uuid::Uuid;

use super::{Statement, about, barrier, failure, values, writer::opening};
use crate::{
    row::{names, no_checkpoint, stored, stored_seq},
    value::rows::KeptPayload,
};

pub(super) async fn claim(connection: &mut SqliteConnection, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
    // The number that is drawn is the newest epoch of all, so the row can read it back.
    const CLAIM: &str = "BEGIN IMMEDIATE; UPDATE checkpoint_epochs SET last = last + 1; \
                         INSERT INTO checkpoint_threads (tenant, thread, namespace, epoch) \
                         SELECT ?1, ?2, ?3, last FROM checkpoint_epochs WHERE true \
                         ON CONFLICT (tenant, thread, namespace) DO UPDATE SET epoch = excluded.epoch \
                         RETURNING epoch; COMMIT";
    let rows = about(CLAIM, key)
        .fetch_all(connection)
        .await
        .map_err(failure::on(key))?;
    let epoch = rows.first().map(|row| row.try_get::<i64, _>(0));
    let epoch = epoch.transpose().map_err(failure::on(key))?.unwrap_or_default();
    Ok(Epoch(epoch.unsigned_abs()))
}

/// Writes all but what the last statement does, which it gives back beside the new head.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    (epoch, expected): (Epoch, Option<Seq>),
    commit: Commit,
    kept: Option<KeptPayload>,
) -> Result<(Option<Seq>, Statement), CheckpointError> {
    let Some(held) = hold(connection, key, epoch, expected, &commit).await? else {
        return Err(refusal(connection, key, epoch, expected).await?);
    };
    if !commit.records.is_empty() {
        let seq = expected.ok_or_else(|| no_checkpoint(key, Seq(0)))?;
        for record in commit.records {
            write_record(connection, key, held.thread, seq, record).await?;
        }
    }
    for message in commit.outbox {
        write_message(connection, key, held.thread, message).await?;
    }
    if let Some(parent) = commit.parent {
        find(connection, key, held.thread, parent).await?;
    }
    let last = match (commit.checkpoint, kept) {
        (Some(new), Some(kept)) => {
            values::write(connection, key, None, kept.values.as_deref().unwrap_or_default()).await?;
            let insertion = about(barrier::insertion(), key);
            let parent = commit.parent.or(expected).map(|seq| stored(seq.0));
            barrier::with_checkpoint(insertion.bind(parent), &new, &kept)
        }
        _ => sqlx::query("COMMIT"),
    };
    let newest = held.head.map(|seq| stored_seq(key, seq)).transpose()?;
    Ok((newest, last))
}

/// Refuses a checkpoint that the thread does not have.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    thread: i64,
    seq: Seq,
) -> Result<(), CheckpointError> {
    const LOOK: &str = "SELECT 1 FROM checkpoint_rows WHERE thread = ?1 AND seq = ?2";
    let look = sqlx::query(LOOK).bind(thread).bind(stored(seq.0));
    let found = look.fetch_optional(connection).await.map_err(failure::on(key))?;
    found.map(|_| ()).ok_or_else(|| no_checkpoint(key, seq))
}

/// The thread's row after its fence and head were found as expected.
struct Held {
    thread: i64,
    head: Option<i64>,
}

macro_rules! if_held {
    ($set:literal) => {
        opening!(
            "UPDATE checkpoint_threads SET ",
            $set,
            " WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3 AND epoch = ?4 AND head IS ?5",
            " RETURNING number, head"
        )
    };
}

/// Checks fence and head and changes the thread's row, all in one statement. `None` if either is another's. The run's
/// columns are left alone where they stay as they are, since they stand in an index.
async fn hold(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    epoch: Epoch,
    expected: Option<Seq>,
    commit: &Commit,
) -> Result<Option<Held>, CheckpointError> {
    const LOOK: &str = opening!(
        "SELECT number, head FROM checkpoint_threads ",
        "WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3 AND epoch = ?4 AND head IS ?5"
    );
    const ADVANCE: &str = if_held!("last = last + 1, head = last + 1");
    const MARK: &str = if_held!("run = ?6, graph = ?7, status = ?8, error = ?9");
    const ADVANCE_AND_MARK: &str =
        if_held!("last = last + 1, head = last + 1, run = ?6, graph = ?7, status = ?8, error = ?9");
    let sql = match (&commit.checkpoint, &commit.run) {
        (None, None) => LOOK,
        (Some(_), None) => ADVANCE,
        (None, Some(_)) => MARK,
        (Some(_), Some(_)) => ADVANCE_AND_MARK,
    };
    let mut query = about(sql, key)
        .bind(stored(epoch.0))
        .bind(expected.map(|seq| stored(seq.0)));
    if let Some(run) = &commit.run {
        query = query
            .bind(run.run.as_uuid())
            .bind(run.graph.clone().into_owned())
            .bind(names::status(run.status))
            .bind(run.error.clone());
    }
    let row = query.fetch_optional(connection).await.map_err(failure::on(key))?;
    let held = row.map(|row| {
        Ok(Held {
            thread: row.try_get(0)?,
            head: row.try_get(1)?,
        })
    });
    held.transpose().map_err(failure::on(key))
}

/// Why a thread was not as its writer expected.
pub(super) async fn refusal(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    epoch: Epoch,
    expected: Option<Seq>,
) -> Result<CheckpointError, CheckpointError> {
    const STANDING: &str = "SELECT head FROM checkpoint_threads \
                            WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3 AND epoch = ?4";
    let row = about(STANDING, key)
        .bind(stored(epoch.0))
        .fetch_optional(connection)
        .await;
    let Some(row) = row.map_err(failure::on(key))? else {
        return Ok(CheckpointError::Fenced { key: key.clone() });
    };
    let head: Option<i64> = row.try_get(0).map_err(failure::on(key))?;
    Ok(CheckpointError::Conflict {
        key: key.clone(),
        expected,
        found: head.map(|head| stored_seq(key, head)).transpose()?,
    })
}

/// Whether a checkpoint has this name.
pub(super) async fn is_named(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    seq: Seq,
    id: Uuid,
) -> Result<bool, CheckpointError> {
    const NAMED: &str = "SELECT c.id = ?5 FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number \
                         WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 AND c.seq = ?4";
    let query = about(NAMED, key).bind(stored(seq.0)).bind(id);
    let row = query.fetch_optional(connection).await.map_err(failure::on(key))?;
    row.map_or(Ok(false), |row| row.try_get(0).map_err(failure::on(key)))
}

/// The epoch of a thread that stands at its first checkpoint, which has this name.
pub(super) async fn begun(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    id: Uuid,
) -> Result<Option<Epoch>, CheckpointError> {
    const BEGUN: &str = "SELECT t.epoch FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number \
                         WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 \
                         AND t.head = 1 AND c.seq = 1 AND c.id = ?4";
    let row = about(BEGUN, key).bind(id).fetch_optional(connection).await;
    let epoch = row.map_err(failure::on(key))?.map(|row| row.try_get::<i64, _>(0));
    let epoch = epoch.transpose().map_err(failure::on(key))?;
    Ok(epoch.map(|epoch| Epoch(epoch.unsigned_abs())))
}

async fn write_record(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    thread: i64,
    seq: Seq,
    record: TaskRecord,
) -> Result<(), CheckpointError> {
    const UPSERT: &str = "INSERT INTO checkpoint_records (thread, seq, task, kind, key, body) \
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                          ON CONFLICT (thread, seq, task, kind, key) DO UPDATE SET body = excluded.body";
    let written = sqlx::query(UPSERT)
        .bind(thread)
        .bind(stored(seq.0))
        .bind(record.task)
        .bind(record.kind.as_str())
        .bind(record.key)
        .bind(record.body)
        .execute(connection)
        .await;
    written.map(drop).map_err(failure::on(key))
}

async fn write_message(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    thread: i64,
    message: OutboxMessage,
) -> Result<(), CheckpointError> {
    const INSERT: &str = "INSERT INTO checkpoint_outbox (thread, id, topic, body) VALUES (?1, ?2, ?3, ?4) \
                          ON CONFLICT (thread, id) DO NOTHING";
    let written = sqlx::query(INSERT)
        .bind(thread)
        .bind(message.id)
        .bind(message.topic)
        .bind(message.body)
        .execute(connection)
        .await;
    written.map(drop).map_err(failure::on(key))
}

pub(super) async fn branch(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    epoch: Epoch,
    from: Seq,
    name: &str,
) -> Result<(), CheckpointError> {
    const LEAVE: &str = opening!(
        "INSERT INTO checkpoint_branches (thread, name, seq) SELECT number, branch, head FROM checkpoint_threads ",
        "WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3 AND epoch = ?4 AND head IS NOT NULL ",
        "ON CONFLICT (thread, name) DO UPDATE SET seq = excluded.seq"
    );
    const MOVE: &str = "UPDATE checkpoint_threads SET head = ?5, branch = ?6 \
                        WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3 AND epoch = ?4 \
                        AND EXISTS (SELECT 1 FROM checkpoint_rows c WHERE c.thread = number AND c.seq = ?5) \
                        RETURNING number";
    const NAME: &str = "INSERT INTO checkpoint_branches (thread, name, seq) VALUES (?1, ?2, ?3) \
                        ON CONFLICT (thread, name) DO UPDATE SET seq = excluded.seq";
    let left = about(LEAVE, key).bind(stored(epoch.0)).execute(&mut *connection).await;
    left.map_err(failure::on(key))?;
    let query = about(MOVE, key)
        .bind(stored(epoch.0))
        .bind(stored(from.0))
        .bind(name.to_owned());
    let moved = query.fetch_optional(&mut *connection).await.map_err(failure::on(key))?;
    let Some(row) = moved else {
        return Err(match refusal(connection, key, epoch, None).await? {
            CheckpointError::Conflict { .. } => no_checkpoint(key, from),
            fenced => fenced,
        });
    };
    let thread: i64 = row.try_get(0).map_err(failure::on(key))?;
    let query = sqlx::query(NAME)
        .bind(thread)
        .bind(name.to_owned())
        .bind(stored(from.0));
    query.execute(connection).await.map(drop).map_err(failure::on(key))
}

/// The rest goes by a trigger.
pub(super) async fn delete(connection: &mut SqliteConnection, key: &ThreadKey) -> Result<(), CheckpointError> {
    const DELETE: &str = opening!("DELETE FROM checkpoint_threads WHERE tenant = ?1 AND thread = ?2");
    let query = sqlx::query(DELETE)
        .bind(key.tenant.as_str().to_owned())
        .bind(key.thread.as_str().to_owned());
    query.execute(connection).await.map(drop).map_err(failure::on(key))
}

pub(super) async fn acknowledge(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    message: Uuid,
) -> Result<(), CheckpointError> {
    const FORGET: &str = opening!(
        "DELETE FROM checkpoint_outbox WHERE id = ?4 AND thread = ",
        "(SELECT number FROM checkpoint_threads WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3)"
    );
    let query = about(FORGET, key).bind(message);
    query.execute(connection).await.map(drop).map_err(failure::on(key))
}
