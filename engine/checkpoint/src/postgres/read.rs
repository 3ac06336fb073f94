//! The statements that only look. Each is one statement, and so sees one moment.

use std::sync::Arc;

use sqlx::{PgConnection, postgres::PgRow};
use stepgraph::{
    CheckpointError, InvalidId, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, Branch, Checkpoint, CheckpointInfo, OutboxMessage, Page, RunMark, Tag},
};

use super::{about, failure, text};
use crate::{
    row::{decode::Columns, stored, stored_seq, unavailable},
    value::rows::Shelf,
};

/// The columns of a checkpoint in the order in which they are decoded.
macro_rules! facts {
    () => {
        "c.seq, c.parent, c.id, c.step, c.source, c.run, c.frontier, c.fingerprint, c.state_version, c.created_at"
    };
}

/// One checkpoint with its run, the payloads from it up to its nearest snapshot, its records, and the large values that the
/// payloads name. The payloads go by parents, one after the other, and so never through another branch: `LIMIT` keeps the
/// planner from looking for parents in any other way than by their number.
macro_rules! whole {
    ($at:literal) => {
        concat!(
            "WITH RECURSIVE this AS (SELECT t.number, t.run AS newest, t.graph, t.status, t.error, c.snapshot, c.payload, c.parts, ",
            "c.value_names, ",
            facts!(),
            " FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number ",
            "WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND ",
            $at,
            "), line (number, seq, parent, snapshot, payload, parts, value_names) AS (",
            "SELECT number, seq, parent, snapshot, payload, parts, value_names FROM this UNION ALL ",
            "SELECT line.number, c.seq, c.parent, c.snapshot, c.payload, c.parts, c.value_names FROM line CROSS JOIN LATERAL (",
            "SELECT * FROM checkpoints p WHERE p.thread = line.number AND p.seq = line.parent LIMIT 1) c ",
            "WHERE NOT line.snapshot) ",
            "SELECT ",
            facts!(),
            ", c.newest, c.graph, c.status, c.error, NULL::BYTEA, NULL, NULL, NULL, 0 FROM this c UNION ALL ",
            "SELECT seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, payload, NULL, NULL, NULL, ",
            "CASE WHEN value_names IS NULL THEN 1 ELSE 2 END FROM line WHERE parts IS NULL UNION ALL ",
            "SELECT seq, p.place, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, p.part, NULL, NULL, NULL, ",
            "CASE WHEN value_names IS NULL THEN 1 ELSE 2 END ",
            "FROM line CROSS JOIN LATERAL unnest(line.parts) WITH ORDINALITY AS p (part, place) UNION ALL ",
            "SELECT r.seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ",
            "r.body, r.task, r.kind, r.key, 3 ",
            "FROM this JOIN checkpoint_records r ON r.thread = this.number AND r.seq = this.seq UNION ALL ",
            // Where the frontier stands otherwise, the name of a value.
            "SELECT NULL, NULL, NULL, NULL, NULL, NULL, n.name, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ",
            "v.body, NULL, NULL, NULL, 4 ",
            "FROM (SELECT DISTINCT line.number, u.name FROM line CROSS JOIN LATERAL unnest(line.value_names) AS u (name)) n ",
            "CROSS JOIN LATERAL (SELECT body FROM checkpoint_values w WHERE w.thread = n.number AND w.name = n.name LIMIT 1) v"
        )
    };
}

/// Of a part: which one it is of those that its row holds.
const PLACE: usize = 1;
/// Of a large value.
const NAME: usize = 6;
const NEWEST_RUN: usize = 10;
const BODY: usize = 14;
const TASK: usize = 15;
/// Which a row is: the facts, a payload, a stub, a record or a large value.
const TURN: usize = 18;

fn columns<'r>(key: &'r ThreadKey, row: &'r PgRow) -> Columns<'r, PgRow, impl Fn(sqlx::Error) -> CheckpointError> {
    Columns {
        key,
        row,
        failed: failure::on(key),
    }
}

pub(super) async fn get(
    connection: &mut PgConnection,
    key: &ThreadKey,
    at: At,
) -> Result<Option<Checkpoint>, CheckpointError> {
    const AT_HEAD: &str = whole!("c.seq = t.head");
    const AT_SEQ: &str = whole!("c.seq = $4");
    const AT_ID: &str = whole!("c.id = $4 ORDER BY c.seq LIMIT 1");
    let query = match at {
        At::Head => about(AT_HEAD, key),
        At::Seq(seq) => about(AT_SEQ, key).bind(stored(seq.0)),
        At::Id(id) => about(AT_ID, key).bind(id),
    };
    let rows = query.fetch_all(connection).await.map_err(failure::on(key))?;
    let (mut facts, mut parts, mut records) = (None, Vec::new(), Vec::new());
    let mut shelf = Shelf::default();
    for row in &rows {
        let columns = columns(key, row);
        let turn = columns.get::<i32>(TURN)?;
        match turn {
            0 => facts = Some((columns.info()?, columns.run_mark(NEWEST_RUN)?)),
            1 | 2 => {
                let place = (columns.get::<i64>(0)?, columns.get::<Option<i64>>(PLACE)?);
                parts.push((place, turn == 2, columns.bytes(BODY)?));
            }
            3 => {
                let mut record = columns.record(TASK, columns.bytes(BODY)?)?;
                record.task = text::read(record.task);
                record.key = text::read(record.key);
                records.push(record);
            }
            _ => shelf.put(key, columns.get(NAME)?, columns.get(BODY)?)?,
        }
    }
    // A parent is always older than its child.
    parts.sort_unstable_by_key(|(place, _, _)| *place);
    let part = |(_, is_stub, bytes): (_, bool, Arc<[u8]>)| if is_stub { shelf.joined(key, &bytes) } else { Ok(bytes) };
    let parts = parts.into_iter().map(part).collect::<Result<_, _>>()?;
    records.sort_unstable_by(|a, b| (&a.task, a.kind, &a.key).cmp(&(&b.task, b.kind, &b.key)));
    Ok(facts.map(|(info, run)| Checkpoint {
        info,
        parts,
        records,
        run: run.map(|run| RunMark {
            graph: text::read(run.graph.into_owned()).into(),
            error: run.error.map(text::read),
            ..run
        }),
    }))
}

pub(super) async fn list(
    connection: &mut PgConnection,
    key: &ThreadKey,
    page: Page,
) -> Result<Vec<CheckpointInfo>, CheckpointError> {
    const LIST: &str = concat!(
        "SELECT ",
        facts!(),
        " FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number ",
        "WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND c.seq < $4 ORDER BY c.seq DESC LIMIT $5"
    );
    let before = page.before.map_or(i64::MAX, |before| stored(before.0));
    let query = about(LIST, key).bind(before).bind(i64::from(page.limit));
    let rows = query.fetch_all(connection).await.map_err(failure::on(key))?;
    rows.iter().map(|row| columns(key, row).info()).collect()
}

pub(super) async fn branches(connection: &mut PgConnection, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
    const BRANCHES: &str = "SELECT t.branch, t.head, TRUE FROM checkpoint_threads t \
                            WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND t.head IS NOT NULL \
                            UNION ALL \
                            SELECT b.name, b.seq, FALSE \
                            FROM checkpoint_threads t JOIN checkpoint_branches b ON b.thread = t.number \
                            WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 AND b.name <> t.branch \
                            ORDER BY 1";
    let rows = about(BRANCHES, key).fetch_all(connection).await;
    let branch = |row| {
        let columns = columns(key, row);
        Ok(Branch {
            name: text::read(columns.get(0)?),
            head: stored_seq(key, columns.get(1)?)?,
            current: columns.get(2)?,
        })
    };
    rows.map_err(failure::on(key))?.iter().map(branch).collect()
}

pub(super) async fn inner(
    connection: &mut PgConnection,
    key: &ThreadKey,
    after: &Namespace,
    limit: u32,
) -> Result<Vec<Namespace>, CheckpointError> {
    const INNER: &str = "SELECT namespace FROM checkpoint_threads \
                         WHERE tenant = $1 AND thread = $2 AND namespace > $3 ORDER BY namespace LIMIT $4";
    let from = ThreadKey {
        namespace: after.clone(),
        ..key.clone()
    };
    let query = about(INNER, &from).bind(i64::from(limit));
    let rows = query.fetch_all(connection).await.map_err(failure::on(key))?;
    let namespace = |row| Ok(Namespace::from_stored(&text::read(columns(key, row).get(0)?)));
    rows.iter().map(namespace).collect()
}

pub(super) async fn tags(connection: &mut PgConnection, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
    const TAGS: &str = "SELECT g.name, g.seq FROM checkpoint_threads t JOIN checkpoint_tags g ON g.thread = t.number \
                        WHERE t.tenant = $1 AND t.thread = $2 AND t.namespace = $3 ORDER BY g.name";
    let rows = about(TAGS, key).fetch_all(connection).await;
    let tag = |row| {
        let columns = columns(key, row);
        Ok(Tag {
            name: text::read(columns.get(0)?),
            seq: stored_seq(key, columns.get(1)?)?,
        })
    };
    rows.map_err(failure::on(key))?.iter().map(tag).collect()
}

pub(super) async fn threads(
    connection: &mut PgConnection,
    tenant: &TenantId,
    after: Option<&ThreadId>,
    limit: u32,
) -> Result<Vec<ThreadId>, CheckpointError> {
    const THREADS: &str = "SELECT DISTINCT thread FROM checkpoint_threads \
                           WHERE tenant = $1 AND thread > $2 ORDER BY thread LIMIT $3";
    let query = sqlx::query_scalar(THREADS)
        .bind(tenant.as_str())
        .bind(after.map_or("", ThreadId::as_str))
        .bind(i64::from(limit));
    let names: Vec<String> = query.fetch_all(connection).await.map_err(failure::anywhere)?;
    let unreadable = |error: InvalidId| unavailable(error.to_string(), Some(Box::new(error)));
    names
        .into_iter()
        .map(|name| ThreadId::new(name).map_err(unreadable))
        .collect()
}

pub(super) async fn unfinished(
    connection: &mut PgConnection,
    graph: &str,
    limit: u32,
) -> Result<Vec<ThreadKey>, CheckpointError> {
    const RUNNING: &str = "SELECT tenant, thread, namespace FROM checkpoint_threads \
                           WHERE status = 'running' AND namespace = '' AND graph = $1 \
                           ORDER BY run, tenant, thread LIMIT $2";
    let query = sqlx::query(RUNNING).bind(text::written(graph)).bind(i64::from(limit));
    let rows = query.fetch_all(connection).await.map_err(failure::anywhere)?;
    rows.iter().map(full_name).collect()
}

pub(super) async fn outbox(
    connection: &mut PgConnection,
    topic: &str,
    limit: u32,
) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
    const WAITING: &str = "SELECT t.tenant, t.thread, t.namespace, o.id, o.topic, o.body \
                           FROM checkpoint_outbox o JOIN checkpoint_threads t ON t.number = o.thread \
                           WHERE o.topic = $1 ORDER BY o.id LIMIT $2";
    let query = sqlx::query(WAITING).bind(text::written(topic)).bind(i64::from(limit));
    let rows = query.fetch_all(connection).await.map_err(failure::anywhere)?;
    let message = |row| {
        let key = full_name(row)?;
        let columns = columns(&key, row);
        let message = OutboxMessage {
            id: columns.get(3)?,
            topic: text::read(columns.get(4)?),
            body: columns.get(5)?,
        };
        drop(columns);
        Ok((key, message))
    };
    rows.iter().map(message).collect()
}

/// The full name of a thread as this store itself has written it down: its tenant was authenticated then.
fn full_name(row: &PgRow) -> Result<ThreadKey, CheckpointError> {
    let text = |column: usize| sqlx::Row::try_get::<String, _>(row, column).map_err(failure::anywhere);
    let unreadable = |error: InvalidId| unavailable(error.to_string(), Some(Box::new(error)));
    Ok(ThreadKey {
        tenant: TenantId::authenticated(text(0)?).map_err(unreadable)?,
        thread: ThreadId::new(text(1)?).map_err(unreadable)?,
        namespace: Namespace::from_stored(&text::read(text(2)?)),
    })
}
