//! The statements that change a thread.
//!
//! A commit is one statement with several parts, of which the first finds the thread as its writer expects it and locks
//! its row, and all others build on what that gave. It is its own transaction. Its rows are read to the end, for only
//! there does the server say that they are committed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use sqlx::{Acquire, PgConnection};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Commit, Epoch, NewCheckpoint, OutboxMessage, Payload, Seq, TaskRecord},
};
use uuid::Uuid;

use super::{Attempt, Statement, about, failure, text};
use crate::{
    row::{names, no_checkpoint, stored, stored_seq, unavailable},
    value::rows::{Kept, KeptPayload, Value},
};

/// The epoch is drawn while the thread's row is locked, so that the later claim gets the higher number. It waits for the
/// disk even where commits do not: a number that a crash of the server takes back would be given to a second owner.
pub(super) async fn claim(connection: &mut PgConnection, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
    const CLAIM: &str = "WITH lasting AS (SELECT set_config('synchronous_commit', 'on', TRUE) AS setting \
                         WHERE current_setting('synchronous_commit') = 'off') \
                         INSERT INTO checkpoint_threads (tenant, thread, namespace, epoch) \
                         SELECT $1, $2, $3, nextval('checkpoint_epochs') FROM (SELECT count(setting) FROM lasting) AS done \
                         ON CONFLICT (tenant, thread, namespace) DO UPDATE SET epoch = nextval('checkpoint_epochs') \
                         RETURNING epoch";
    let rows = about(CLAIM, key)
        .fetch_all(connection)
        .await
        .map_err(failure::on(key))?;
    let epoch: i64 = first(key, &rows)?;
    Ok(Epoch(epoch.unsigned_abs()))
}

fn first<'r, T>(key: &ThreadKey, rows: &'r [sqlx::postgres::PgRow]) -> Result<T, CheckpointError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row = rows
        .first()
        .ok_or_else(|| failure::anywhere(sqlx::Error::RowNotFound))?;
    sqlx::Row::try_get(row, 0).map_err(failure::on(key))
}

/// Who writes, and what they have seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence<'a> {
    pub(super) key: &'a ThreadKey,
    pub(super) epoch: Epoch,
    pub(super) expected: Option<Seq>,
}

/// The thread under its full name, held by this epoch, at this head.
macro_rules! as_expected {
    () => {
        "t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND t.epoch = $4 AND t.head IS NOT DISTINCT FROM $5"
    };
}

macro_rules! look {
    () => {
        concat!(
            "WITH held AS (SELECT t.number, t.head, t.run FROM checkpoint_threads t WHERE ",
            as_expected!(),
            " FOR NO KEY UPDATE)"
        )
    };
}

macro_rules! mark {
    () => {
        concat!(
            "WITH held AS (UPDATE checkpoint_threads t SET run = $6, graph = $7, status = $8, error = $9 WHERE ",
            as_expected!(),
            " RETURNING t.number, t.head, t.run)"
        )
    };
}

/// The run's columns keep their values where $6 is null; an index that they stand in is then left alone. A parent that is
/// named must be there: where the row was waited for, `s` and `c` are as they were before, `t` is not, and only while nothing
/// was thinned meanwhile do they agree.
macro_rules! advance {
    () => {
        concat!(
            "WITH held AS (UPDATE checkpoint_threads t SET last = t.last + 1, head = t.last + 1, ",
            "run = coalesce($6, t.run), graph = coalesce($7, t.graph), status = coalesce($8, t.status), ",
            "error = CASE WHEN $6::UUID IS NULL THEN t.error ELSE $9 END WHERE ",
            as_expected!(),
            " AND ($10::BIGINT IS NULL OR EXISTS (SELECT FROM checkpoint_threads s JOIN checkpoints c ON c.thread = s.number ",
            "WHERE s.number = t.number AND s.thinnings = t.thinnings AND c.seq = $10)) ",
            "RETURNING t.number, t.head, t.run), ",
            "new AS (INSERT INTO checkpoints (thread, seq, run, parent, id, step, source, snapshot, fingerprint, ",
            "state_version, created_at, frontier, payload, value_names) ",
            "SELECT number, head, run, coalesce($10, $5), $11, $12, $13, $14, $15, $16, $17, $18, $19, $20 FROM held)"
        )
    };
}

macro_rules! extras {
    ($tasks:literal, $kinds:literal, $keys:literal, $bodies:literal, $ids:literal, $topics:literal, $messages:literal) => {
        concat!(
            ", records AS (INSERT INTO checkpoint_records (thread, seq, task, kind, key, body) ",
            "SELECT held.number, $5, r.task, r.kind, r.key, r.body FROM held, unnest(",
            $tasks,
            "::TEXT[], ",
            $kinds,
            "::TEXT[], ",
            $keys,
            "::TEXT[], ",
            $bodies,
            "::BYTEA[]) ",
            "AS r (task, kind, key, body) ",
            "ON CONFLICT (thread, seq, task, kind, key) DO UPDATE SET body = excluded.body), ",
            "messages AS (INSERT INTO checkpoint_outbox (thread, id, topic, body) ",
            "SELECT held.number, m.id, m.topic, m.body FROM held, unnest(",
            $ids,
            "::UUID[], ",
            $topics,
            "::TEXT[], ",
            $messages,
            "::BYTEA[]) AS m (id, topic, body) ",
            "ON CONFLICT (thread, id) DO NOTHING)"
        )
    };
}

macro_rules! give_head {
    () => {
        " SELECT head FROM held"
    };
}

const LOOK: &str = concat!(look!(), give_head!());
const LOOK_MORE: &str = concat!(
    look!(),
    extras!("$6", "$7", "$8", "$9", "$10", "$11", "$12"),
    give_head!()
);
const MARK: &str = concat!(mark!(), give_head!());
const MARK_MORE: &str = concat!(
    mark!(),
    extras!("$10", "$11", "$12", "$13", "$14", "$15", "$16"),
    give_head!()
);
const ADVANCE: &str = concat!(advance!(), give_head!());
const ADVANCE_MORE: &str = concat!(
    advance!(),
    extras!("$21", "$22", "$23", "$24", "$25", "$26", "$27"),
    give_head!()
);
/// With large values: those that the thread has already stay as they are.
const ADVANCE_ALL: &str = concat!(
    advance!(),
    extras!("$21", "$22", "$23", "$24", "$25", "$26", "$27"),
    ", bodies AS (INSERT INTO checkpoint_values (thread, name, body) ",
    "SELECT held.number, v.name, v.body FROM held, unnest($20::BYTEA[], $28::BYTEA[]) AS v (name, body) ",
    "ON CONFLICT (thread, name) DO NOTHING)",
    give_head!()
);

/// How often a commit is made that was refused only because the thread was thinned while it waited.
const THINNED_MEANWHILE_MAX: u32 = 4;

pub(super) async fn commit(
    connection: &mut PgConnection,
    fence: Fence<'_>,
    what: (&Commit, Option<&KeptPayload>),
    attempt: Attempt,
) -> Result<Option<Seq>, CheckpointError> {
    for _ in 1..THINNED_MEANWHILE_MAX {
        match once(connection, fence, what, attempt).await? {
            Outcome::Written(head) => return Ok(head),
            Outcome::ThinnedMeanwhile => {}
        }
    }
    match once(connection, fence, what, attempt).await? {
        Outcome::Written(head) => Ok(head),
        Outcome::ThinnedMeanwhile => {
            let message = format!("thread {} is thinned again and again; try later", fence.key);
            Err(unavailable(message, None))
        }
    }
}

enum Outcome {
    Written(Option<Seq>),
    ThinnedMeanwhile,
}

async fn once(
    connection: &mut PgConnection,
    fence: Fence<'_>,
    (commit, kept): (&Commit, Option<&KeptPayload>),
    attempt: Attempt,
) -> Result<Outcome, CheckpointError> {
    let Fence { key, epoch, expected } = fence;
    // Records need a checkpoint to hang on; why the commit is refused without one is found below.
    let hangs = expected.is_some() || commit.records.is_empty();
    if hangs && parent_of_nothing_is_there(connection, key, commit).await? {
        let values = kept.map_or(&[][..], values);
        let more = !commit.records.is_empty() || !commit.outbox.is_empty() || !values.is_empty();
        let sql = match (&commit.checkpoint, &commit.run, more) {
            (None, None, false) => LOOK,
            (None, None, true) => LOOK_MORE,
            (None, Some(_), false) => MARK,
            (None, Some(_), true) => MARK_MORE,
            (Some(_), _, false) => ADVANCE,
            (Some(_), _, true) if values.is_empty() => ADVANCE_MORE,
            (Some(_), _, true) => ADVANCE_ALL,
        };
        let mut query = about(sql, key)
            .bind(stored(epoch.0))
            .bind(expected.map(|seq| stored(seq.0)));
        query = with_run(query, commit);
        if let (Some(new), Some(kept)) = (&commit.checkpoint, kept) {
            query = with_checkpoint(query, commit.parent, new, kept);
        }
        if more {
            query = with_records(query, &commit.records);
            query = with_messages(query, &commit.outbox);
        }
        if !values.is_empty() {
            query = query.bind(values.iter().map(|value| &*value.body).collect::<Vec<_>>());
        }
        let rows = query.fetch_all(&mut *connection).await.map_err(failure::on(key))?;
        if !rows.is_empty() {
            let head: Option<i64> = first(key, &rows)?;
            let head = head.map(|seq| stored_seq(key, seq)).transpose()?;
            return Ok(Outcome::Written(head));
        }
    }
    refusal(connection, fence, commit, attempt).await
}

fn with_run<'q>(query: Statement<'q>, commit: &'q Commit) -> Statement<'q> {
    match &commit.run {
        Some(run) => query
            .bind(run.run.as_uuid())
            .bind(text::written(&run.graph))
            .bind(names::status(run.status))
            .bind(run.error.as_deref().map(text::written)),
        None if commit.checkpoint.is_none() => query,
        None => query
            .bind(None::<Uuid>)
            .bind(None::<&str>)
            .bind(None::<&str>)
            .bind(None::<&str>),
    }
}

fn with_checkpoint<'q>(
    query: Statement<'q>,
    parent: Option<Seq>,
    new: &'q NewCheckpoint,
    kept: &'q KeptPayload,
) -> Statement<'q> {
    query
        .bind(parent.map(|seq| stored(seq.0)))
        .bind(new.id)
        .bind(new.step)
        .bind(names::source(new.source))
        .bind(matches!(new.payload, Payload::Snapshot(_)))
        .bind(new.fingerprint)
        .bind(i64::from(new.state_version))
        .bind(new.created_at.timestamp_micros())
        .bind(&*new.frontier)
        .bind(&*kept.bytes)
        .bind(names_of(kept))
}

fn values(kept: &KeptPayload) -> &[Value] {
    kept.values.as_deref().unwrap_or_default()
}

/// The large values that stubs name; `None` where there are no stubs.
pub(super) fn names_of<B>(kept: &Kept<B>) -> Option<Vec<&[u8]>> {
    let values = kept.values.as_ref()?;
    Some(values.iter().map(|value| value.name.as_slice()).collect())
}

/// One statement may write a row once: of records with one name the last stays.
fn with_records<'q>(query: Statement<'q>, records: &'q [TaskRecord]) -> Statement<'q> {
    let named = records
        .iter()
        .map(|record| ((&record.task, record.kind, &record.key), record));
    let last: BTreeMap<_, _> = named.collect();
    let (mut tasks, mut kinds, mut keys, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for record in last.into_values() {
        tasks.push(text::written(&record.task));
        kinds.push(record.kind.as_str());
        keys.push(text::written(&record.key));
        bodies.push(&*record.body);
    }
    query.bind(tasks).bind(kinds).bind(keys).bind(bodies)
}

fn with_messages<'q>(query: Statement<'q>, outbox: &'q [OutboxMessage]) -> Statement<'q> {
    let mut seen = HashSet::new();
    let (mut ids, mut topics, mut bodies): (Vec<_>, Vec<Cow<'_, str>>, Vec<_>) = Default::default();
    for message in outbox.iter().filter(|message| seen.insert(message.id)) {
        ids.push(message.id);
        topics.push(text::written(&message.topic));
        bodies.push(message.body.as_slice());
    }
    query.bind(ids).bind(topics).bind(bodies)
}

/// The parent of a new checkpoint is looked for where that is written. Without one nothing can stand on it, but it is to be
/// there all the same.
async fn parent_of_nothing_is_there(
    connection: &mut PgConnection,
    key: &ThreadKey,
    commit: &Commit,
) -> Result<bool, CheckpointError> {
    const THERE: &str = "SELECT c.seq FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number \
                         WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND c.seq = $4";
    let Some(parent) = commit.parent.filter(|_| commit.checkpoint.is_none()) else {
        return Ok(true);
    };
    let query = about(THERE, key).bind(stored(parent.0));
    let rows = query.fetch_all(connection).await.map_err(failure::on(key))?;
    Ok(!rows.is_empty())
}

/// Why a thread was not as its writer expected: or, on a second attempt, that the first has written everything after all.
async fn refusal(
    connection: &mut PgConnection,
    fence: Fence<'_>,
    commit: &Commit,
    attempt: Attempt,
) -> Result<Outcome, CheckpointError> {
    const STANDING: &str = "SELECT t.head, c.id, \
                            EXISTS (SELECT FROM checkpoints p WHERE p.thread = t.number AND p.seq = $5) FROM checkpoint_threads t \
                            LEFT JOIN checkpoints c ON c.thread = t.number AND c.seq = t.head \
                            WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND t.epoch = $4";
    let Fence { key, epoch, expected } = fence;
    let rows = about(STANDING, key)
        .bind(stored(epoch.0))
        .bind(commit.parent.map(|seq| stored(seq.0)))
        .fetch_all(connection)
        .await;
    let rows = rows.map_err(failure::on(key))?;
    let Some(row) = rows.first() else {
        return Err(CheckpointError::Fenced { key: key.clone() });
    };
    let head: Option<i64> = sqlx::Row::try_get(row, 0).map_err(failure::on(key))?;
    let id: Option<Uuid> = sqlx::Row::try_get(row, 1).map_err(failure::on(key))?;
    let found = head.map(|head| stored_seq(key, head)).transpose()?;
    let own = commit.checkpoint.as_ref().map(|new| new.id);
    if attempt == Attempt::Second && own.is_some() && own == id && found != expected {
        return Ok(Outcome::Written(found));
    }
    let parent_is_there: bool = sqlx::Row::try_get(row, 2).map_err(failure::on(key))?;
    let hangs = expected.is_some() || commit.records.is_empty();
    if found == expected && parent_is_there && hangs {
        return Ok(Outcome::ThinnedMeanwhile);
    }
    Err(match commit.parent {
        _ if found != expected => CheckpointError::Conflict {
            key: key.clone(),
            expected,
            found,
        },
        _ if expected.is_none() && !commit.records.is_empty() => no_checkpoint(key, Seq(0)),
        Some(parent) => no_checkpoint(key, parent),
        // It has moved there and back between two statements.
        None => CheckpointError::Conflict {
            key: key.clone(),
            expected,
            found,
        },
    })
}

/// The epoch of a thread that stands at its first checkpoint, which has this name.
pub(super) async fn begun(
    connection: &mut PgConnection,
    key: &ThreadKey,
    id: Uuid,
) -> Result<Option<Epoch>, CheckpointError> {
    const BEGUN: &str = "SELECT t.epoch FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number \
                         WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 \
                         AND t.head = 1 AND c.seq = 1 AND c.id = $4";
    let rows = about(BEGUN, key).bind(id).fetch_all(connection).await;
    let rows = rows.map_err(failure::on(key))?;
    let epoch = rows.first().map(|row| sqlx::Row::try_get::<i64, _>(row, 0));
    let epoch = epoch.transpose().map_err(failure::on(key))?;
    Ok(epoch.map(|epoch| Epoch(epoch.unsigned_abs())))
}

pub(super) async fn branch(
    connection: &mut PgConnection,
    key: &ThreadKey,
    epoch: Epoch,
    from: Seq,
    name: &str,
) -> Result<(), CheckpointError> {
    const HOLD: &str = "SELECT t.number FROM checkpoint_threads t \
                        WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND t.epoch = $4 FOR NO KEY UPDATE";
    const LEAVE: &str = "INSERT INTO checkpoint_branches (thread, name, seq) \
                         SELECT number, branch, head FROM checkpoint_threads WHERE number = $1 AND head IS NOT NULL \
                         ON CONFLICT (thread, name) DO UPDATE SET seq = excluded.seq";
    const NAME: &str = "INSERT INTO checkpoint_branches (thread, name, seq) \
                        SELECT c.thread, $2, c.seq FROM checkpoints c WHERE c.thread = $1 AND c.seq = $3 \
                        ON CONFLICT (thread, name) DO UPDATE SET seq = excluded.seq";
    const MOVE: &str = "UPDATE checkpoint_threads SET head = $3, branch = $2 WHERE number = $1";
    let failed = failure::on(key);
    let mut turn = connection.begin().await.map_err(&failed)?;
    let hold = about(HOLD, key).bind(stored(epoch.0));
    let rows = hold.fetch_all(&mut *turn).await.map_err(&failed)?;
    let Some(row) = rows.first() else {
        return Err(CheckpointError::Fenced { key: key.clone() });
    };
    let thread: i64 = sqlx::Row::try_get(row, 0).map_err(&failed)?;
    sqlx::query(LEAVE)
        .bind(thread)
        .execute(&mut *turn)
        .await
        .map_err(&failed)?;
    for sql in [NAME, MOVE] {
        let query = sqlx::query(sql)
            .bind(thread)
            .bind(text::written(name))
            .bind(stored(from.0));
        let done = query.execute(&mut *turn).await.map_err(&failed)?;
        if done.rows_affected() == 0 {
            return Err(no_checkpoint(key, from));
        }
    }
    turn.commit().await.map_err(failed)
}

/// The rest goes by a trigger.
pub(super) async fn delete(connection: &mut PgConnection, key: &ThreadKey) -> Result<(), CheckpointError> {
    const DELETE: &str = "DELETE FROM checkpoint_threads WHERE tenant = $1 AND thread = $2";
    let query = sqlx::query(DELETE).bind(key.tenant.as_str()).bind(key.thread.as_str());
    query.execute(connection).await.map(drop).map_err(failure::on(key))
}

pub(super) async fn acknowledge(
    connection: &mut PgConnection,
    key: &ThreadKey,
    message: Uuid,
) -> Result<(), CheckpointError> {
    const FORGET: &str = "DELETE FROM checkpoint_outbox WHERE id = $4 AND thread = \
                          (SELECT number FROM checkpoint_threads WHERE tenant = $1 AND thread = $2 AND namespace = $3)";
    let query = about(FORGET, key).bind(message);
    query.execute(connection).await.map(drop).map_err(failure::on(key))
}
