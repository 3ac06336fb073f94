//! The statements that name checkpoints and take them out.
//!
//! Each first locks the thread's row, as a commit does, and looks at the rest in statements of their own: only those see
//! what was committed while the lock was waited for.

use sqlx::{Acquire, PgConnection};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Seq, Thinning},
};

use super::{about, failure, text};
use crate::row::{no_checkpoint, stored, stored_seq};

pub(super) async fn tag(
    connection: &mut PgConnection,
    key: &ThreadKey,
    name: &str,
    at: Option<Seq>,
) -> Result<(), CheckpointError> {
    const FORGET: &str = "DELETE FROM checkpoint_tags WHERE name = $4 AND thread = \
                          (SELECT number FROM checkpoint_threads WHERE tenant = $1 AND thread = $2 AND namespace = $3)";
    const HOLD: &str = "SELECT number FROM checkpoint_threads \
                        WHERE tenant = $1 AND thread = $2 AND namespace = $3 FOR NO KEY UPDATE";
    const NAME: &str = "INSERT INTO checkpoint_tags (thread, name, seq) \
                        SELECT c.thread, $2, c.seq FROM checkpoints c WHERE c.thread = $1 AND c.seq = $3 \
                        ON CONFLICT (thread, name) DO UPDATE SET seq = excluded.seq";
    let failed = failure::on(key);
    let Some(seq) = at else {
        let query = about(FORGET, key).bind(text::written(name));
        return query.execute(connection).await.map(drop).map_err(failed);
    };
    let mut turn = connection.begin().await.map_err(&failed)?;
    let rows = about(HOLD, key).fetch_all(&mut *turn).await.map_err(&failed)?;
    let Some(row) = rows.first() else {
        return Err(no_checkpoint(key, seq));
    };
    let thread: i64 = sqlx::Row::try_get(row, 0).map_err(&failed)?;
    let query = sqlx::query(NAME).bind(thread).bind(text::written(name));
    let named = query.bind(stored(seq.0)).execute(&mut *turn).await.map_err(&failed)?;
    if named.rows_affected() == 0 {
        return Err(no_checkpoint(key, seq));
    }
    turn.commit().await.map_err(failed)
}

/// A child is younger than its parent, so that only rows above the oldest that goes can stand on one. The row of the branch
/// that the thread is on says where it began, not where it is.
const IN_USE: &str = "SELECT used.seq FROM (\
                      SELECT head FROM checkpoint_threads WHERE number = $1 UNION ALL \
                      SELECT b.seq FROM checkpoint_branches b JOIN checkpoint_threads t ON t.number = b.thread \
                      WHERE b.thread = $1 AND b.name <> t.branch UNION ALL \
                      SELECT seq FROM checkpoint_tags WHERE thread = $1 UNION ALL \
                      SELECT parent FROM checkpoints WHERE thread = $1 \
                      AND seq > (SELECT min(r.seq) FROM unnest($2::BIGINT[]) AS r (seq)) \
                      AND NOT seq = ANY($2) AND NOT seq = ANY($3)) AS used (seq) \
                      WHERE used.seq = ANY($2) LIMIT 1";

pub(super) async fn thin(
    connection: &mut PgConnection,
    key: &ThreadKey,
    thinning: &Thinning,
) -> Result<(), CheckpointError> {
    const HOLD: &str = "UPDATE checkpoint_threads SET thinnings = thinnings + 1 \
                        WHERE tenant = $1 AND thread = $2 AND namespace = $3 RETURNING number";
    const REBASE: &str = "UPDATE checkpoints SET parent = NULL, snapshot = TRUE, payload = '', parts = $3 \
                          WHERE thread = $1 AND seq = $2";
    const REMOVE: [&str; 2] = [
        "DELETE FROM checkpoints WHERE thread = $1 AND seq = ANY($2)",
        "DELETE FROM checkpoint_records WHERE thread = $1 AND seq = ANY($2)",
    ];
    let failed = failure::on(key);
    let removed: Vec<i64> = thinning.removed.iter().map(|seq| stored(seq.0)).collect();
    let rebased: Vec<i64> = thinning.rebased.iter().map(|(seq, _)| stored(seq.0)).collect();
    let mut turn = connection.begin().await.map_err(&failed)?;
    let rows = about(HOLD, key).fetch_all(&mut *turn).await.map_err(&failed)?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let thread: i64 = sqlx::Row::try_get(row, 0).map_err(&failed)?;
    let used = sqlx::query_scalar::<_, i64>(IN_USE).bind(thread).bind(&removed);
    let used = used.bind(&rebased).fetch_all(&mut *turn).await.map_err(&failed)?;
    if let Some(seq) = used.first() {
        let (key, seq) = (key.clone(), stored_seq(key, *seq)?);
        return Err(CheckpointError::InUse { key, seq });
    }
    for (seq, (_, parts)) in rebased.into_iter().zip(&thinning.rebased) {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        let query = sqlx::query(REBASE).bind(thread).bind(seq).bind(parts);
        query.execute(&mut *turn).await.map_err(&failed)?;
    }
    for sql in REMOVE {
        let query = sqlx::query(sql).bind(thread).bind(&removed);
        query.execute(&mut *turn).await.map_err(&failed)?;
    }
    turn.commit().await.map_err(failed)
}
