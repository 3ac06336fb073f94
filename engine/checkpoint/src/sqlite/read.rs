//! The statements that only look.

use sqlx::{Row, SqlitePool, sqlite::SqliteRow};
use stepgraph::{
    CheckpointError, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, Branch, Checkpoint, CheckpointInfo, OutboxMessage, Page},
};

use super::{about, barrier::APART, failure};
use crate::{
    row::{decode::Columns, parts, stored, stored_seq},
    value::rows::Shelf,
};

macro_rules! facts {
    ($rest:literal) => {
        concat!(
            "SELECT c.seq, c.parent, c.id, c.step, c.source, c.run, c.frontier, c.fingerprint, c.state_version, ",
            "c.created_at, t.run, t.graph, t.status, t.error ",
            "FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number ",
            "WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 AND ",
            $rest
        )
    };
}

const NEWEST: &str = facts!("?4 IS NULL ORDER BY c.seq DESC LIMIT ?5");
const BEFORE: &str = facts!("c.seq < ?4 ORDER BY c.seq DESC LIMIT ?5");

/// A checkpoint in one query, and so at one moment: first its facts, then the payloads from it up to its nearest snapshot,
/// by parents and so never through another branch, then its records, then the large values that the payloads name. The
/// columns are those of `facts!`, and three more.
macro_rules! whole {
    ($place:literal) => {
        concat!(
            "WITH RECURSIVE this AS MATERIALIZED (SELECT number, head, run, graph, status, error FROM checkpoint_threads ",
            "WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3), ",
            "place (thread, seq) AS MATERIALIZED (",
            $place,
            "), line (thread, seq, parent, kind) AS (",
            "SELECT c.thread, c.seq, c.parent, c.kind FROM place p JOIN checkpoint_rows c ON c.thread = p.thread AND c.seq = p.seq ",
            "UNION ALL ",
            "SELECT c.thread, c.seq, c.parent, c.kind ",
            "FROM line JOIN checkpoint_rows c ON c.thread = line.thread AND c.seq = line.seq - line.parent ",
            "WHERE line.kind IN (0, 4) AND line.parent > 0) ",
            "SELECT c.seq, c.parent, c.id, c.step, c.source, c.run, c.frontier, c.fingerprint, c.state_version, c.created_at, ",
            "t.run, t.graph, t.status, t.error, 0, NULL, NULL ",
            "FROM this t CROSS JOIN place p JOIN checkpoints c ON c.thread = p.thread AND c.seq = p.seq ",
            "UNION ALL ",
            "SELECT line.seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, c.payload, c.kind ",
            "FROM line CROSS JOIN checkpoint_rows c ON c.thread = line.thread AND c.seq = line.seq ",
            "UNION ALL ",
            "SELECT r.task, r.kind, r.key, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, r.body, NULL ",
            "FROM place p CROSS JOIN checkpoint_records r ON r.thread = p.thread AND r.seq = p.seq ",
            "UNION ALL ",
            "SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 3, v.body, v.name ",
            "FROM (SELECT DISTINCT u.thread, u.name FROM line CROSS JOIN checkpoint_value_uses u ",
            "ON u.thread = line.thread AND u.seq = line.seq WHERE line.kind >= 4) n ",
            "CROSS JOIN checkpoint_values v ON v.thread = n.thread AND v.name = n.name"
        )
    };
}

const WHOLE_AT_HEAD: &str = whole!("SELECT number, head FROM this WHERE head IS NOT NULL");
const WHOLE_AT_SEQ: &str = whole!("SELECT number, ?4 FROM this");
const WHOLE_AT_ID: &str = whole!(
    "SELECT c.thread, c.seq FROM this t JOIN checkpoints c ON c.thread = t.number WHERE c.id = ?4 ORDER BY c.seq LIMIT 1"
);

/// Which of the four a row is.
const TURN: usize = 14;
const BODY: usize = 15;
/// Of a payload its kind, of a large value its name.
const KIND: usize = 16;

pub(super) async fn get(pool: &SqlitePool, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
    let query = match at {
        At::Head => about(WHOLE_AT_HEAD, key),
        At::Seq(seq) => about(WHOLE_AT_SEQ, key).bind(stored(seq.0)),
        At::Id(id) => about(WHOLE_AT_ID, key).bind(id),
    };
    let rows = query.fetch_all(pool).await.map_err(failure::on(key))?;
    let (mut facts, mut parts, mut records) = (None, Vec::new(), Vec::new());
    let mut shelf = Shelf::default();
    for row in &rows {
        let columns = columns(key, row);
        match columns.get::<i64>(TURN)? {
            0 => facts = Some((columns.info()?, columns.run_mark(10)?)),
            1 => parts.push((columns.get::<i64>(0)?, columns.get::<i64>(KIND)?, columns.bytes(BODY)?)),
            2 => records.push(columns.record(0, columns.bytes(BODY)?)?),
            _ => shelf.put(key, columns.get(KIND)?, columns.get(BODY)?)?,
        }
    }
    let Some((info, run)) = facts else { return Ok(None) };
    // A parent is always older than its child.
    parts.sort_unstable_by_key(|(seq, _, _)| *seq);
    let mut whole = Vec::with_capacity(parts.len());
    for (_, kind, body) in parts {
        let own = match kind % APART {
            parts::KIND => parts::read(key, &body)?,
            _ => vec![body],
        };
        if kind < APART {
            whole.extend(own);
        } else {
            for stub in own {
                whole.push(shelf.joined(key, &stub)?);
            }
        }
    }
    records.sort_unstable_by(|a, b| (&a.task, a.kind, &a.key).cmp(&(&b.task, b.kind, &b.key)));
    Ok(Some(Checkpoint {
        info,
        parts: whole,
        records,
        run,
    }))
}

fn columns<'r>(
    key: &'r ThreadKey,
    row: &'r SqliteRow,
) -> Columns<'r, SqliteRow, impl Fn(sqlx::Error) -> CheckpointError> {
    Columns {
        key,
        row,
        failed: failure::on(key),
    }
}

pub(super) async fn list(
    pool: &SqlitePool,
    key: &ThreadKey,
    page: Page,
) -> Result<Vec<CheckpointInfo>, CheckpointError> {
    let query = match page.before {
        Some(before) => about(BEFORE, key).bind(stored(before.0)),
        None => about(NEWEST, key).bind(None::<i64>),
    };
    let rows = query.bind(page.limit).fetch_all(pool).await.map_err(failure::on(key))?;
    rows.iter().map(|row| columns(key, row).info()).collect()
}

pub(super) async fn branches(pool: &SqlitePool, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
    const BRANCHES: &str = "SELECT t.branch, t.head, 1 FROM checkpoint_threads t \
                            WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 AND t.head IS NOT NULL \
                            UNION ALL \
                            SELECT b.name, b.seq, 0 \
                            FROM checkpoint_threads t JOIN checkpoint_branches b ON b.thread = t.number \
                            WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 AND b.name <> t.branch \
                            ORDER BY 1";
    let rows = about(BRANCHES, key).fetch_all(pool).await.map_err(failure::on(key))?;
    let branch = |row: &SqliteRow| {
        let decode = failure::on(key);
        Ok(Branch {
            name: row.try_get(0).map_err(&decode)?,
            head: stored_seq(key, row.try_get(1).map_err(&decode)?)?,
            current: row.try_get(2).map_err(&decode)?,
        })
    };
    rows.iter().map(branch).collect()
}

pub(super) async fn inner(
    pool: &SqlitePool,
    key: &ThreadKey,
    after: &Namespace,
    limit: u32,
) -> Result<Vec<Namespace>, CheckpointError> {
    const INNER: &str = "SELECT namespace FROM checkpoint_threads \
                         WHERE tenant = ?1 AND thread = ?2 AND namespace > ?3 ORDER BY namespace LIMIT ?4";
    let from = ThreadKey {
        namespace: after.clone(),
        ..key.clone()
    };
    let query = about(INNER, &from).bind(limit);
    let rows = query.fetch_all(pool).await.map_err(failure::on(key))?;
    let namespace = |row: &SqliteRow| row.try_get(0).map(Namespace::from_stored);
    rows.iter()
        .map(namespace)
        .collect::<Result<_, _>>()
        .map_err(failure::on(key))
}

pub(super) async fn unfinished(pool: &SqlitePool, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
    const RUNNING: &str = "SELECT tenant, thread, namespace FROM checkpoint_threads \
                           WHERE status = 'running' AND namespace = '' AND graph = ?1 \
                           ORDER BY run, tenant, thread LIMIT ?2";
    let query = sqlx::query(RUNNING).bind(graph.to_owned()).bind(limit);
    let rows = query.fetch_all(pool).await.map_err(failure::anywhere)?;
    rows.iter().map(full_name).collect()
}

pub(super) async fn outbox(
    pool: &SqlitePool,
    topic: &str,
    limit: u32,
) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
    const WAITING: &str = "SELECT t.tenant, t.thread, t.namespace, o.id, o.topic, o.body \
                           FROM checkpoint_outbox o JOIN checkpoint_threads t ON t.number = o.thread \
                           WHERE o.topic = ?1 ORDER BY o.id LIMIT ?2";
    let query = sqlx::query(WAITING).bind(topic.to_owned()).bind(limit);
    let rows = query.fetch_all(pool).await.map_err(failure::anywhere)?;
    let message = |row: &SqliteRow| {
        let key = full_name(row)?;
        let message = OutboxMessage {
            id: row.try_get(3).map_err(failure::on(&key))?,
            topic: row.try_get(4).map_err(failure::on(&key))?,
            body: row.try_get(5).map_err(failure::on(&key))?,
        };
        Ok((key, message))
    };
    rows.iter().map(message).collect()
}

/// The full name of a thread as this store itself has written it down: its tenant was authenticated then.
fn full_name(row: &SqliteRow) -> Result<ThreadKey, CheckpointError> {
    let text = |column: usize| row.try_get::<String, _>(column).map_err(failure::anywhere);
    let unreadable = |error: stepgraph::InvalidId| failure::unavailable(error.to_string(), Some(Box::new(error)));
    Ok(ThreadKey {
        tenant: TenantId::authenticated(text(0)?).map_err(unreadable)?,
        thread: ThreadId::new(text(1)?).map_err(unreadable)?,
        namespace: Namespace::from_stored(&text(2)?),
    })
}
