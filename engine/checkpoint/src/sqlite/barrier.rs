//! The commits that most are: one checkpoint, perhaps how far the run has come, and nothing else. Each is written by one
//! call to SQLite, and several of them by one too.
//!
//! A call to SQLite crosses to the connection's own thread and back, which costs as much as the work itself. So the
//! statements are joined: `BEGIN IMMEDIATE`; of each commit the update of its thread's row, which gives a row back if fence
//! and head were as expected, and the insertion of its checkpoint, which happens only if that update did; `COMMIT`.
//! Whatever goes wrong in any of them is heard, since all rows are read. Values are named `$1`: of numbered ones (`?1`) sqlx
//! takes those that a statement leaves out for values too, and runs out of them.

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

use sqlx::{Row, SqliteConnection};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{CheckpointSource, Commit, Epoch, NewCheckpoint, Payload, RunMark, Seq},
};

use super::{Statement, failure};
use crate::{
    row::{names, stored},
    value::rows::{Kept, KeptPayload, Value},
};

/// Values of a commit without a run mark.
const VALUES: usize = 14;
/// Values of a run mark.
const MARK_VALUES: usize = 4;

/// Commits that one call can hold, in each shape. SQLite takes 32,766 values in a call; more commits are more calls.
pub(super) const SIZES: [usize; 4] = [1, 4, 16, 64];

/// How a commit is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// A checkpoint alone: the columns of the run are left as they are, since they stand in an index.
    Plain,
    /// With how far the run has come.
    Marked,
    /// With that, and the thread is made and claimed.
    Begun,
}

/// A commit of one checkpoint.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) key: ThreadKey,
    pub(super) epoch: Epoch,
    pub(super) expected: Option<Seq>,
    new: NewCheckpoint,
    kept: KeptPayload,
    mark: Option<RunMark>,
    begins: bool,
}

impl Barrier {
    /// Whether a commit is of this kind.
    pub(super) const fn is(commit: &Commit) -> bool {
        commit.checkpoint.is_some() && commit.parent.is_none() && commit.records.is_empty() && commit.outbox.is_empty()
    }

    pub(super) fn new(
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        (new, kept): (NewCheckpoint, KeptPayload),
        mark: Option<RunMark>,
    ) -> Self {
        Self {
            key: key.clone(),
            epoch,
            expected,
            new,
            kept,
            mark,
            begins: false,
        }
    }

    /// The first commit of a thread, which makes and claims it.
    pub(super) fn beginning(key: &ThreadKey, new: (NewCheckpoint, KeptPayload), mark: RunMark) -> Self {
        Self {
            begins: true,
            ..Self::new(key, Epoch(0), None, new, Some(mark))
        }
    }

    pub(super) const fn shape(&self) -> Shape {
        match (self.begins, &self.mark) {
            (true, _) => Shape::Begun,
            (false, Some(_)) => Shape::Marked,
            (false, None) => Shape::Plain,
        }
    }

    /// The name of the new checkpoint.
    pub(super) const fn id(&self) -> uuid::Uuid {
        self.new.id
    }

    /// The large values of the new checkpoint, which are written once it is.
    pub(super) fn values(&self) -> &[Value] {
        self.kept.values.as_deref().unwrap_or_default()
    }
}

/// Writes commits of one shape, as many as one of [`SIZES`], and gives of each that was not refused the new head, or the
/// epoch where it has begun a thread.
/// `opens` and `closes` say whether they begin and end the transaction.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    barriers: &[&Barrier],
    (opens, closes): (bool, bool),
) -> Result<Vec<Option<i64>>, CheckpointError> {
    let shape = barriers.first().map_or(Shape::Plain, |barrier| barrier.shape());
    let mut query = sqlx::query(text(barriers.len(), shape, opens, closes));
    for barrier in barriers {
        query = bound(query, barrier);
    }
    let rows = query.fetch_all(connection).await.map_err(failure::anywhere)?;
    let mut heads = vec![None; barriers.len()];
    for row in rows {
        let at: i64 = row.try_get(0).map_err(failure::anywhere)?;
        let head: i64 = row.try_get(1).map_err(failure::anywhere)?;
        if let Some(place) = usize::try_from(at).ok().and_then(|at| heads.get_mut(at)) {
            *place = Some(head);
        }
    }
    Ok(heads)
}

/// The statements for so many commits of a shape. They are made once.
fn text(count: usize, shape: Shape, opens: bool, closes: bool) -> &'static str {
    static TEXTS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let shapes = SIZES
            .iter()
            .flat_map(|count| [Shape::Plain, Shape::Marked, Shape::Begun].map(|shape| (*count, shape)));
        let ends = |(count, shape)| {
            [(true, true), (true, false), (false, true), (false, false)]
                .map(|(opens, closes)| joined(count, shape, opens, closes))
        };
        shapes.flat_map(ends).collect()
    });
    let size = SIZES.iter().position(|size| *size == count).unwrap_or_default();
    let shape = match shape {
        Shape::Plain => 0,
        Shape::Marked => 4,
        Shape::Begun => 8,
    };
    let at = size * 12 + shape + usize::from(!opens) * 2 + usize::from(!closes);
    TEXTS.get(at).copied().unwrap_or_default()
}

fn joined(count: usize, shape: Shape, opens: bool, closes: bool) -> &'static str {
    let mut text = String::from(if opens { "BEGIN IMMEDIATE; " } else { "" });
    let values = VALUES + if shape == Shape::Plain { 0 } else { MARK_VALUES };
    for at in 0..count {
        // Writing to a string cannot fail.
        let _ = one(&mut text, at, at * values, shape);
    }
    if closes {
        text.push_str("COMMIT");
    }
    text.leak()
}

/// The statements of one commit; its values are numbered from `before` + 1 on. They are those of a thread's row, then those
/// of a checkpoint, then those of a run's mark: see [`bound`].
fn one(text: &mut String, at: usize, before: usize, shape: Shape) -> std::fmt::Result {
    let value = |number: usize| format!("${}", before + number);
    let [tenant, thread, namespace, epoch, expected] = [1, 2, 3, 4, 5].map(value);
    let held = format!("t.tenant = {tenant} AND t.thread = {thread} AND t.namespace = {namespace}");
    let [run, graph, status, error] = [15, 16, 17, 18].map(value);
    let mark = match shape {
        Shape::Plain => String::new(),
        Shape::Marked => format!(", run = {run}, graph = {graph}, status = {status}, error = {error}"),
        Shape::Begun => {
            write!(
                text,
                "UPDATE checkpoint_epochs SET last = last + 1; \
                 INSERT INTO checkpoint_threads \
                 (tenant, thread, namespace, epoch, last, head, run, graph, status, error) \
                 SELECT {tenant}, {thread}, {namespace}, last, 1, 1, {run}, {graph}, {status}, {error} \
                 FROM checkpoint_epochs WHERE true \
                 ON CONFLICT (tenant, thread, namespace) DO NOTHING RETURNING {at}, epoch; "
            )?;
            return insert(text, &held, &expected, before + 5, "changes() = 1");
        }
    };
    write!(
        text,
        "UPDATE checkpoint_threads AS t SET last = last + 1, head = last + 1{mark} \
         WHERE {held} AND epoch = {epoch} AND head IS {expected} RETURNING {at}, head; "
    )?;
    insert(text, &held, &expected, before + 5, "changes() = 1")
}

/// The insertion of a checkpoint as the head of the thread that `held` names, which already stands at it, over the
/// checkpoint of the number `parent`. Its own values are numbered from `before` + 1 on.
fn insert(text: &mut String, held: &str, parent: &str, before: usize, condition: &str) -> std::fmt::Result {
    let value = |number: usize| format!("${}", before + number);
    let [id, step, source, kind, fingerprint, version, created, frontier, payload] =
        [1, 2, 3, 4, 5, 6, 7, 8, 9].map(value);
    write!(
        text,
        "INSERT INTO checkpoint_rows SELECT number, head, parent, iif(same, head - origin, 0), {kind}, {source}, \
         {step}, {created} - iif(same, began, 0), iif(same, NULL, {version}), iif(same, NULL, run), \
         iif(same, NULL, {fingerprint}), iif(same AND named = substr({id}, 1, 12), substr({id}, 13), {id}), \
         iif(same AND next = {frontier}, NULL, {frontier}), {payload} \
         FROM (SELECT t.number, t.head, t.run, coalesce(t.head - p.seq, 0) AS parent, o.seq AS origin, \
         o.created_at AS began, substr(o.id, 1, 12) AS named, o.frontier AS next, \
         coalesce(o.run IS t.run AND o.fingerprint = {fingerprint} AND o.state_version = {version}, 0) AS same \
         FROM checkpoint_threads t \
         LEFT JOIN checkpoint_rows p ON p.thread = t.number AND p.seq = {parent} \
         LEFT JOIN checkpoint_rows o ON o.thread = t.number AND o.seq = p.seq - p.origin \
         WHERE {held} AND {condition}); "
    )
}

/// The insertion alone, of the commits that are not of this kind: its values come behind the thread's full name and the
/// parent.
pub(super) fn insertion() -> &'static str {
    static TEXT: LazyLock<&'static str> = LazyLock::new(|| {
        let mut text = String::new();
        let held = "t.tenant = $1 AND t.thread = $2 AND t.namespace = $3";
        // Writing to a string cannot fail.
        let _ = insert(&mut text, held, "$4", 4, "1");
        text.push_str("COMMIT");
        text.leak()
    });
    *TEXT
}

fn bound(query: Statement, barrier: &Barrier) -> Statement {
    let query = query
        .bind(barrier.key.tenant.as_str().to_owned())
        .bind(barrier.key.thread.as_str().to_owned())
        .bind(barrier.key.namespace.as_str().to_owned())
        .bind(stored(barrier.epoch.0))
        .bind(barrier.expected.map(|seq| stored(seq.0)));
    let query = with_checkpoint(query, &barrier.new, &barrier.kept);
    match &barrier.mark {
        Some(mark) => query
            .bind(mark.run.as_uuid())
            .bind(mark.graph.clone().into_owned())
            .bind(names::status(mark.status))
            .bind(mark.error.clone()),
        None => query,
    }
}

/// The values of a checkpoint, in the order of [`insert`].
pub(super) fn with_checkpoint(query: Statement, new: &NewCheckpoint, kept: &KeptPayload) -> Statement {
    let source: i64 = match new.source {
        CheckpointSource::Step => 0,
        CheckpointSource::Input => 1,
        CheckpointSource::Update => 2,
        CheckpointSource::Fork => 3,
    };
    query
        .bind(new.id)
        .bind(new.step)
        .bind(source)
        .bind(i64::from(matches!(new.payload, Payload::Snapshot(_))) + apart(kept))
        .bind(new.fingerprint)
        .bind(new.state_version)
        .bind(new.created_at.timestamp_micros())
        .bind(new.frontier.to_vec())
        .bind(Arc::clone(&kept.bytes))
}

/// What is added to the kind of a row whose payload is stubs.
pub(super) const APART: i64 = 4;

pub(super) const fn apart<B>(kept: &Kept<B>) -> i64 {
    if kept.values.is_some() { APART } else { 0 }
}
