//! The statements that name checkpoints and take them out.
//!
//! Each first locks the thread's row, as a commit does, and looks at the rest in statements of their own: only those see
//! what was committed while the lock was waited for.

use sqlx::{Acquire, PgConnection};
use stepgraph::{
    CheckpointError, ThreadKey,
    checkpoint::{Seq, Thinning},
};

use super::{about, failure, text, write::names_of};
use crate::{
    row::{no_checkpoint, stored, stored_seq},
    value::{Keeping, rows::KeptParts},
};

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

/// A thinning whose parts are cut as rows keep them.
pub(super) struct Cut {
    rebased: Vec<(Seq, KeptParts)>,
    removed: Vec<i64>,
}

impl Cut {
    pub(super) fn of(thinning: &Thinning, keeping: Keeping) -> Self {
        let Thinning { rebased, removed } = thinning;
        let kept = |(seq, parts): &(Seq, Vec<_>)| (*seq, KeptParts::of_parts(parts, keeping));
        Self {
            rebased: rebased.iter().map(kept).collect(),
            removed: removed.iter().map(|seq| stored(seq.0)).collect(),
        }
    }
}

pub(super) async fn thin(
    connection: &mut PgConnection,
    key: &ThreadKey,
    thinning: &Cut,
) -> Result<(), CheckpointError> {
    const HOLD: &str = "UPDATE checkpoint_threads SET thinnings = thinnings + 1 \
                        WHERE tenant = $1 AND thread = $2 AND namespace = $3 RETURNING number";
    const REMOVE: [&str; 2] = [
        "DELETE FROM checkpoints WHERE thread = $1 AND seq = ANY($2)",
        "DELETE FROM checkpoint_records WHERE thread = $1 AND seq = ANY($2)",
    ];
    // A commit that waits for this one's end writes its values again, or finds them.
    const SWEEP: &str = "DELETE FROM checkpoint_values WHERE thread = $1 AND name NOT IN (\
                         SELECT unnest(value_names) FROM checkpoints WHERE thread = $1 AND value_names IS NOT NULL)";
    let failed = failure::on(key);
    let removed = &thinning.removed;
    let rebased: Vec<i64> = thinning.rebased.iter().map(|(seq, _)| stored(seq.0)).collect();
    let mut turn = connection.begin().await.map_err(&failed)?;
    let rows = about(HOLD, key).fetch_all(&mut *turn).await.map_err(&failed)?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let thread: i64 = sqlx::Row::try_get(row, 0).map_err(&failed)?;
    let used = sqlx::query_scalar::<_, i64>(IN_USE).bind(thread).bind(removed);
    let used = used.bind(&rebased).fetch_all(&mut *turn).await.map_err(&failed)?;
    if let Some(seq) = used.first() {
        let (key, seq) = (key.clone(), stored_seq(key, *seq)?);
        return Err(CheckpointError::InUse { key, seq });
    }
    for (seq, (_, own)) in rebased.into_iter().zip(&thinning.rebased) {
        rebase(&mut turn, (thread, seq), own).await.map_err(&failed)?;
    }
    for sql in REMOVE {
        let query = sqlx::query(sql).bind(thread).bind(removed);
        query.execute(&mut *turn).await.map_err(&failed)?;
    }
    let sweep = sqlx::query(SWEEP).bind(thread).execute(&mut *turn).await;
    sweep.map_err(&failed)?;
    turn.commit().await.map_err(failed)
}

/// Lets a checkpoint stand on its own. One that is not there is passed over: what it would have named is swept away.
async fn rebase(connection: &mut PgConnection, (thread, seq): (i64, i64), own: &KeptParts) -> Result<(), sqlx::Error> {
    const REBASE: &str = "UPDATE checkpoints SET parent = NULL, snapshot = TRUE, payload = '', parts = $3, value_names = $4 \
                          WHERE thread = $1 AND seq = $2";
    const KEEP: &str = "INSERT INTO checkpoint_values (thread, name, body) \
                        SELECT $1, v.name, v.body FROM unnest($2::BYTEA[], $3::BYTEA[]) AS v (name, body) \
                        ON CONFLICT (thread, name) DO NOTHING";
    let (names, parts): (_, Vec<&[u8]>) = (names_of(own), own.bytes.iter().map(|part| &**part).collect());
    if let (Some(names), Some(values)) = (&names, &own.values) {
        let bodies: Vec<&[u8]> = values.iter().map(|value| &*value.body).collect();
        let query = sqlx::query(KEEP).bind(thread).bind(names).bind(bodies);
        query.execute(&mut *connection).await?;
    }
    let query = sqlx::query(REBASE).bind(thread).bind(seq).bind(parts).bind(names);
    query.execute(connection).await.map(drop)
}
