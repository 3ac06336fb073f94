//! The statements that write many commits of one checkpoint each: the values of each column as one array.
//!
//! A row that another holds is skipped and not waited for. Which rows are found by number and not by a join that the
//! planner may choose otherwise is said by `LATERAL` and `LIMIT`.

use sqlx::{PgConnection, Row as _};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Epoch, NewCheckpoint, Payload, RunMark, Seq},
};

use super::{Statement, failure, text};
use crate::row::{names, stored};

/// A commit of one checkpoint, perhaps with how far the run has come, and nothing else: what most are.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) key: ThreadKey,
    pub(super) epoch: Epoch,
    pub(super) expected: Option<Seq>,
    pub(super) new: NewCheckpoint,
    pub(super) mark: Option<RunMark>,
    /// The first commit of a thread, which makes and claims it.
    pub(super) begins: bool,
}

/// The values in the order of [`with_threads`], [`with_checkpoints`] and [`with_marks`], and the place of each commit.
macro_rules! given {
    () => {
        "unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::BIGINT[], $6::UUID[], $7::BIGINT[], $8::TEXT[], \
         $9::BOOLEAN[], $10::UUID[], $11::BIGINT[], $12::BIGINT[], $13::BYTEA[], $14::BYTEA[], $15::UUID[], $16::TEXT[], \
         $17::TEXT[], $18::TEXT[]) WITH ORDINALITY AS g (tenant, thread, namespace, epoch, expected, id, step, source, \
         snapshot, fingerprint, state_version, created_at, frontier, payload, run, graph, status, error, place)"
    };
}

macro_rules! columns {
    () => {
        "(thread, seq, run, parent, id, step, source, snapshot, fingerprint, state_version, created_at, frontier, payload)"
    };
}

/// Threads that are there, each held by its epoch and at its head.
const GO_ON: &str = concat!(
    "WITH held AS (SELECT g.*, f.number FROM ",
    given!(),
    " CROSS JOIN LATERAL (SELECT t.number FROM checkpoint_threads t WHERE t.tenant = g.tenant AND t.thread = g.thread \
     AND t.namespace = g.namespace AND t.epoch = g.epoch AND t.head IS NOT DISTINCT FROM g.expected LIMIT 1 \
     FOR NO KEY UPDATE SKIP LOCKED) f), \
     moved AS (UPDATE checkpoint_threads t SET last = t.last + 1, head = t.last + 1, run = coalesce(h.run, t.run), \
     graph = coalesce(h.graph, t.graph), status = coalesce(h.status, t.status), \
     error = CASE WHEN h.run IS NULL THEN t.error ELSE h.error END FROM held h WHERE t.number = h.number \
     RETURNING t.head, t.run AS newest, h.*), \
     written AS (INSERT INTO checkpoints ",
    columns!(),
    " SELECT number, head, newest, expected, id, step, source, snapshot, fingerprint, state_version, created_at, frontier, \
     payload FROM moved) SELECT place, head FROM moved"
);

/// Threads that are not there yet. The epoch waits for the disk even where commits do not, as a claim does.
const BEGIN: &str = concat!(
    "WITH lasting AS (SELECT set_config('synchronous_commit', 'on', TRUE) AS setting \
     WHERE current_setting('synchronous_commit') = 'off'), \
     drawn AS MATERIALIZED (SELECT g.*, nextval('checkpoint_epochs') AS new FROM \
     (SELECT count(setting) FROM lasting) AS done, ",
    given!(),
    "), made AS (INSERT INTO checkpoint_threads (tenant, thread, namespace, epoch, last, head, run, graph, status, error) \
     SELECT tenant, thread, namespace, new, 1, 1, run, graph, status, error FROM drawn \
     ON CONFLICT (tenant, thread, namespace) DO NOTHING RETURNING number, epoch), \
     written AS (INSERT INTO checkpoints ",
    columns!(),
    " SELECT m.number, 1, d.run, NULL, d.id, d.step, d.source, d.snapshot, d.fingerprint, d.state_version, d.created_at, \
     d.frontier, d.payload FROM made m JOIN drawn d ON d.new = m.epoch) \
     SELECT d.place, m.epoch FROM made m JOIN drawn d ON d.new = m.epoch"
);

/// Writes them in one transaction: all of them begin threads, or none does. Gives of each that is written its new head, or
/// the epoch where it has begun its thread.
pub(super) async fn write(
    connection: &mut PgConnection,
    barriers: &[&Barrier],
) -> Result<Vec<Option<i64>>, CheckpointError> {
    let begins = barriers.first().is_some_and(|barrier| barrier.begins);
    let query = sqlx::query(if begins { BEGIN } else { GO_ON });
    let query = with_threads(query, barriers);
    let query = with_checkpoints(query, &each(barriers, |barrier| &barrier.new));
    let query = with_marks(query, &each(barriers, |barrier| barrier.mark.as_ref()));
    let rows = query.fetch_all(connection).await.map_err(failure::anywhere)?;
    let mut numbers = vec![None; barriers.len()];
    for row in rows {
        let place: i64 = row.try_get(0).map_err(failure::anywhere)?;
        let number: i64 = row.try_get(1).map_err(failure::anywhere)?;
        let place = usize::try_from(place).ok().and_then(|place| place.checked_sub(1));
        if let Some(place) = place.and_then(|place| numbers.get_mut(place)) {
            *place = Some(number);
        }
    }
    Ok(numbers)
}

fn each<'a, T, V>(all: &'a [T], value: impl Fn(&'a T) -> V) -> Vec<V> {
    all.iter().map(value).collect()
}

fn with_threads<'q>(query: Statement<'q>, barriers: &[&'q Barrier]) -> Statement<'q> {
    query
        .bind(each(barriers, |barrier| barrier.key.tenant.as_str()))
        .bind(each(barriers, |barrier| barrier.key.thread.as_str()))
        .bind(each(barriers, |barrier| text::written(barrier.key.namespace.as_str())))
        .bind(each(barriers, |barrier| stored(barrier.epoch.0)))
        .bind(each(barriers, |barrier| barrier.expected.map(|seq| stored(seq.0))))
}

fn with_checkpoints<'q>(query: Statement<'q>, all: &[&'q NewCheckpoint]) -> Statement<'q> {
    query
        .bind(each(all, |new| new.id))
        .bind(each(all, |new| new.step))
        .bind(each(all, |new| names::source(new.source)))
        .bind(each(all, |new| matches!(new.payload, Payload::Snapshot(_))))
        .bind(each(all, |new| new.fingerprint))
        .bind(each(all, |new| i64::from(new.state_version)))
        .bind(each(all, |new| new.created_at.timestamp_micros()))
        .bind(each(all, |new| &*new.frontier))
        .bind(each(all, |new| &**new.payload.bytes()))
}

fn with_marks<'q>(query: Statement<'q>, all: &[Option<&'q RunMark>]) -> Statement<'q> {
    query
        .bind(each(all, |mark| mark.map(|mark| mark.run.as_uuid())))
        .bind(each(all, |mark| mark.map(|mark| text::written(&mark.graph))))
        .bind(each(all, |mark| mark.map(|mark| names::status(mark.status))))
        .bind(each(all, |mark| {
            mark.and_then(|mark| mark.error.as_deref()).map(text::written)
        }))
}
