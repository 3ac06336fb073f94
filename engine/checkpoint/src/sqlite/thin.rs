//! Tags, lists of threads, and taking checkpoints out.

use serde_json::json;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use stepgraph::{
    CheckpointError, TenantId, ThreadId, ThreadKey,
    checkpoint::{Seq, Tag, Thinning},
};

use super::{about, barrier, failure, values, writer::opening};
use crate::{
    row::{no_checkpoint, parts, stored, stored_seq},
    value::{Keeping, rows::KeptParts},
};

pub(super) async fn tag(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    name: &str,
    at: Option<Seq>,
) -> Result<(), CheckpointError> {
    const TAG: &str = opening!(
        "INSERT INTO checkpoint_tags (thread, name, seq) ",
        "SELECT c.thread, ?4, c.seq FROM checkpoint_threads t JOIN checkpoint_rows c ON c.thread = t.number AND c.seq = ?5 ",
        "WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 ",
        "ON CONFLICT (thread, name) DO UPDATE SET seq = excluded.seq RETURNING thread"
    );
    const UNTAG: &str = opening!(
        "DELETE FROM checkpoint_tags WHERE name = ?4 AND thread = ",
        "(SELECT number FROM checkpoint_threads WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3)"
    );
    let Some(seq) = at else {
        let untag = about(UNTAG, key).bind(name.to_owned());
        return untag.execute(connection).await.map(drop).map_err(failure::on(key));
    };
    let tag = about(TAG, key).bind(name.to_owned()).bind(stored(seq.0));
    let tagged = tag.fetch_optional(connection).await.map_err(failure::on(key))?;
    tagged.map(drop).ok_or_else(|| no_checkpoint(key, seq))
}

pub(super) async fn tags(pool: &SqlitePool, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
    const TAGS: &str = "SELECT g.name, g.seq \
                        FROM checkpoint_threads t JOIN checkpoint_tags g ON g.thread = t.number \
                        WHERE t.tenant = ?1 AND t.thread = ?2 AND t.namespace = ?3 ORDER BY g.name";
    let rows = about(TAGS, key).fetch_all(pool).await.map_err(failure::on(key))?;
    let tag = |row: &SqliteRow| {
        Ok(Tag {
            name: row.try_get(0).map_err(failure::on(key))?,
            seq: stored_seq(key, row.try_get(1).map_err(failure::on(key))?)?,
        })
    };
    rows.iter().map(tag).collect()
}

pub(super) async fn threads(
    pool: &SqlitePool,
    tenant: &TenantId,
    after: Option<&ThreadId>,
    limit: u32,
) -> Result<Vec<ThreadId>, CheckpointError> {
    const THREADS: &str = "SELECT DISTINCT thread FROM checkpoint_threads WHERE tenant = ?1 AND thread > ?2 \
                           ORDER BY thread LIMIT ?3";
    let query = sqlx::query(THREADS)
        .bind(tenant.as_str().to_owned())
        // No thread's name is empty.
        .bind(after.map_or("", ThreadId::as_str).to_owned())
        .bind(limit);
    let rows = query.fetch_all(pool).await.map_err(failure::anywhere)?;
    let name = |row: &SqliteRow| {
        let name: String = row.try_get(0).map_err(failure::anywhere)?;
        ThreadId::new(name).map_err(|error| failure::unavailable(error.to_string(), Some(Box::new(error))))
    };
    rows.iter().map(name).collect()
}

/// A thinning whose parts are cut as rows keep them.
pub(super) struct Cut {
    rebased: Vec<(Seq, KeptParts)>,
    removed: Vec<Seq>,
}

impl Cut {
    pub(super) fn of(thinning: Thinning, keeping: Keeping) -> Self {
        let Thinning { rebased, removed } = thinning;
        let kept = |(seq, parts): (Seq, Vec<_>)| (seq, KeptParts::of_parts(&parts, keeping));
        Self {
            rebased: rebased.into_iter().map(kept).collect(),
            removed,
        }
    }
}

/// Takes checkpoints out. What other rows have of an origin that goes, they say themselves first.
pub(super) async fn thin(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    thinning: Cut,
) -> Result<(), CheckpointError> {
    const LOOK: &str =
        opening!("SELECT number FROM checkpoint_threads WHERE tenant = ?1 AND thread = ?2 AND namespace = ?3");
    const IN_USE: &str = "WITH gone (seq) AS MATERIALIZED (SELECT value FROM json_each(?2)) \
        SELECT seq FROM gone WHERE seq IN (SELECT head FROM checkpoint_threads WHERE number = ?1) \
            OR seq IN (SELECT b.seq FROM checkpoint_branches b JOIN checkpoint_threads t ON t.number = b.thread \
                WHERE t.number = ?1 AND b.name <> t.branch) \
            OR seq IN (SELECT seq FROM checkpoint_tags WHERE thread = ?1) \
        UNION ALL \
        SELECT c.seq - c.parent FROM checkpoint_rows c \
        WHERE c.thread = ?1 AND c.seq > (SELECT min(seq) FROM gone) AND c.parent > 0 \
            AND c.seq - c.parent IN (SELECT seq FROM gone) AND c.seq NOT IN (SELECT seq FROM gone) \
            AND c.seq NOT IN (SELECT value FROM json_each(?3)) \
        LIMIT 1";
    const STAND_ALONE: &str = "UPDATE checkpoint_rows AS c SET origin = 0, id = whole.id, run = whole.run, \
            fingerprint = whole.fingerprint, state_version = whole.state_version, created_at = whole.created_at, \
            frontier = whole.frontier \
        FROM checkpoints AS whole \
        WHERE c.thread = ?1 AND c.seq > (SELECT min(value) FROM json_each(?2)) AND c.origin > 0 \
            AND c.seq - c.origin IN (SELECT value FROM json_each(?2)) AND c.seq NOT IN (SELECT value FROM json_each(?2)) \
            AND whole.thread = c.thread AND whole.seq = c.seq";
    const REMOVE: &str = "DELETE FROM checkpoint_rows WHERE thread = ?1 AND seq IN (SELECT value FROM json_each(?2))";
    const FORGET: &str =
        "DELETE FROM checkpoint_records WHERE thread = ?1 AND seq IN (SELECT value FROM json_each(?2))";
    let Cut { rebased, removed } = thinning;
    let looked = about(LOOK, key).fetch_optional(&mut *connection).await;
    let Some(row) = looked.map_err(failure::on(key))? else {
        return Ok(());
    };
    let thread: i64 = row.try_get(0).map_err(failure::on(key))?;
    let gone = json!(removed.iter().map(|seq| stored(seq.0)).collect::<Vec<_>>()).to_string();
    let alone = json!(rebased.iter().map(|(seq, _)| stored(seq.0)).collect::<Vec<_>>()).to_string();
    let in_use = sqlx::query(IN_USE).bind(thread).bind(gone.clone()).bind(alone);
    if let Some(row) = in_use
        .fetch_optional(&mut *connection)
        .await
        .map_err(failure::on(key))?
    {
        let seq = stored_seq(key, row.try_get(0).map_err(failure::on(key))?)?;
        return Err(CheckpointError::InUse { key: key.clone(), seq });
    }
    for (seq, own) in rebased {
        rebase(connection, key, thread, seq, &own).await?;
    }
    for sql in [STAND_ALONE, REMOVE, FORGET, values::FORGET, values::SWEEP] {
        let query = sqlx::query(sql).bind(thread).bind(gone.clone());
        query.execute(&mut *connection).await.map_err(failure::on(key))?;
    }
    Ok(())
}

/// Lets a checkpoint stand on its own. One that is not there is passed over.
async fn rebase(
    connection: &mut SqliteConnection,
    key: &ThreadKey,
    thread: i64,
    seq: Seq,
    own: &KeptParts,
) -> Result<(), CheckpointError> {
    const REBASE: &str =
        "UPDATE checkpoint_rows SET parent = 0, kind = ?3, payload = ?4 WHERE thread = ?1 AND seq = ?2";
    let (kind, body) = match own.bytes.as_slice() {
        [whole] => (1, whole.to_vec()),
        several => (parts::KIND, parts::write(several)),
    };
    let query = sqlx::query(REBASE).bind(thread).bind(stored(seq.0));
    let query = query.bind(kind + barrier::apart(own)).bind(body);
    let done = query.execute(&mut *connection).await.map_err(failure::on(key))?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let query = sqlx::query(values::LET_GO).bind(thread).bind(stored(seq.0));
    query.execute(&mut *connection).await.map_err(failure::on(key))?;
    values::write(connection, key, Some(seq), own.values.as_deref().unwrap_or_default()).await
}
