//! All chunks embedded anew by another model, while the vectors of the present one still answer.
//!
//! New vectors are kept beside the old ones and take their place in one transaction, once every chunk has one. What has
//! been made stays when the work is cut off. A chunk that comes meanwhile is found by the next pass; ids of chunks are not
//! used twice, and a vector is kept only while its chunk has the text that it was made of.

use std::{fmt, sync::Arc};

use sqlx::SqliteConnection;
use stepgraph::TenantId;

use super::{SERVICE, SqliteVectors, corrupt, database, dense, number, refused};
use crate::service::{Embedder, ModelName, Purpose, ServiceError, vectors::embedding_name};

/// Texts embedded by one call.
const TEXTS_PER_CALL: usize = 64;

type Embedding = Option<(ModelName, u32)>;

/// How far the work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reindexed {
    /// Chunks there are.
    pub chunks: u64,
    /// Those of them that have a vector of the new model.
    pub ready: u64,
}

/// Embeds all chunks of all tenants anew. Nothing that answers is changed before [`finish`](Self::finish) says so.
pub struct Reindex {
    store: SqliteVectors,
    embedder: Option<Arc<dyn Embedder>>,
    /// The chunk that was read last, by its tenant's row and its id.
    after: (i64, i64),
}

impl fmt::Debug for Reindex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reindex")
            .field("target", &self.target())
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct MissingRow {
    name: String,
    tenant: i64,
    id: i64,
    text: String,
}

impl Reindex {
    /// Begins, or goes on with what was begun for the same model; what was made for another is dropped. Without an
    /// embedder the chunks are to lose their vectors. `None` where every tenant's chunks are of this model already.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub async fn begin(
        store: &SqliteVectors,
        embedder: Option<Arc<dyn Embedder>>,
    ) -> Result<Option<Self>, ServiceError> {
        let work = Self {
            store: store.clone(),
            embedder,
            after: (0, -1),
        };
        let target = work.target();
        let mut transaction = store.writer.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
        let other = another(&mut transaction, target.as_ref()).await?;
        if other.is_some() && under_way(&mut transaction).await?.as_ref() == Some(&target) {
            return Ok(Some(work));
        }
        for clear in ["DELETE FROM vector_next", "DELETE FROM reindex"] {
            sqlx::query(clear).execute(&mut *transaction).await.map_err(database)?;
        }
        if other.is_some() {
            let (model, dimension) = columns(target.as_ref());
            sqlx::query("INSERT INTO reindex (id, model, dimension) VALUES (1, ?, ?)")
                .bind(model)
                .bind(dimension)
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
        }
        transaction.commit().await.map_err(database)?;
        Ok(other.is_some().then_some(work))
    }

    /// How far it is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn progress(&self) -> Result<Reindexed, ServiceError> {
        let mut connection = self.store.readers.acquire().await.map_err(database)?;
        counts(&mut connection, self.embedder.is_some()).await
    }

    /// Embeds some of the chunks that have no new vector yet and says how many it looked at: none at the end of the pass.
    /// The next call begins another pass then.
    ///
    /// # Errors
    /// The model does not answer, the file cannot be written, or another work for another model has begun meanwhile.
    pub async fn step(&mut self) -> Result<usize, ServiceError> {
        let Some(embedder) = self.embedder.clone() else {
            return Ok(0);
        };
        let rows = self.missing().await?;
        let Some(last) = rows.last() else {
            self.after = (0, -1);
            return Ok(0);
        };
        let after = (last.tenant, last.id);
        for of_tenant in rows.chunk_by(|a, b| a.tenant == b.tenant) {
            let Some(first) = of_tenant.first() else { continue };
            let tenant = TenantId::authenticated(first.name.as_str()).map_err(|error| corrupt(error.to_string()))?;
            let texts: Vec<String> = of_tenant.iter().map(|row| row.text.clone()).collect();
            let vectors = embedder.embed(&tenant, Purpose::Document, &texts).await?;
            let packed = of_tenant
                .iter()
                .zip(&vectors)
                .map(|(row, vector)| packed(row, vector, embedder.dimension()));
            let packed: Vec<Vec<u8>> = packed.collect::<Result<_, ServiceError>>()?;
            if packed.len() != of_tenant.len() {
                return Err(corrupt(format!(
                    "`{}` left texts out: {} vectors for {}",
                    embedder.model(),
                    packed.len(),
                    of_tenant.len()
                )));
            }
            self.keep(of_tenant, packed).await?;
        }
        self.after = after;
        Ok(rows.len())
    }

    /// Lets the new vectors answer in place of the old ones, in one transaction, and says whether it did: it does not
    /// where a chunk has none, since it came meanwhile. Whoever asks must embed by the new model from then on.
    ///
    /// # Errors
    /// The file cannot be written, or another work for another model has begun meanwhile.
    pub async fn finish(&self) -> Result<bool, ServiceError> {
        let target = self.target();
        let mut transaction = self
            .store
            .writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(database)?;
        self.is_ours(&mut transaction).await?;
        let counted = counts(&mut transaction, target.is_some()).await?;
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM vector_next")
            .fetch_one(&mut *transaction)
            .await
            .map_err(database)?;
        if counted.ready != counted.chunks {
            return Ok(false);
        }
        let wanted = if target.is_some() { counted.chunks } else { 0 };
        if number::<u64>(kept)? != wanted {
            return Err(corrupt(format!("{wanted} chunks, but {kept} new vectors")));
        }
        for statement in [
            "ALTER TABLE vector RENAME TO vector_before",
            "ALTER TABLE vector_next RENAME TO vector",
            "DROP TABLE vector_before",
            "CREATE TABLE vector_next (tenant INTEGER NOT NULL REFERENCES tenant (id), chunk INTEGER NOT NULL, \
             components BLOB NOT NULL, PRIMARY KEY (tenant, chunk)) STRICT",
            "DELETE FROM reindex",
        ] {
            sqlx::query(statement)
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
        }
        let (model, dimension) = columns(target.as_ref());
        sqlx::query("UPDATE tenant SET model = ?, dimension = ?")
            .bind(model)
            .bind(dimension)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
        transaction.commit().await.map_err(database)?;
        Ok(true)
    }

    fn target(&self) -> Embedding {
        let embedder = self.embedder.as_ref();
        embedder.map(|embedder| (embedder.model().clone(), embedder.dimension()))
    }

    async fn missing(&self) -> Result<Vec<MissingRow>, ServiceError> {
        sqlx::query_as(
            "SELECT tenant.name, chunk.tenant, chunk.id, chunk.text FROM chunk JOIN tenant ON tenant.id = chunk.tenant \
             WHERE (chunk.tenant, chunk.id) > (?, ?) AND NOT EXISTS (SELECT 1 FROM vector_next AS next \
             WHERE next.tenant = chunk.tenant AND next.chunk = chunk.id) ORDER BY chunk.tenant, chunk.id LIMIT ?",
        )
        .bind(self.after.0)
        .bind(self.after.1)
        .bind(i64::try_from(TEXTS_PER_CALL).unwrap_or(i64::MAX))
        .fetch_all(&self.store.readers)
        .await
        .map_err(database)
    }

    async fn keep(&self, rows: &[MissingRow], packed: Vec<Vec<u8>>) -> Result<(), ServiceError> {
        let mut transaction = self
            .store
            .writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(database)?;
        self.is_ours(&mut transaction).await?;
        for (row, components) in rows.iter().zip(packed) {
            sqlx::query(
                "INSERT INTO vector_next (tenant, chunk, components) SELECT chunk.tenant, chunk.id, ?1 FROM chunk \
                 JOIN tenant ON tenant.id = chunk.tenant \
                 WHERE chunk.tenant = ?2 AND chunk.id = ?3 AND tenant.name = ?4 AND chunk.text = ?5 ON CONFLICT DO NOTHING",
            )
            .bind(components)
            .bind(row.tenant)
            .bind(row.id)
            .bind(&row.name)
            .bind(&row.text)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
        }
        transaction.commit().await.map_err(database)
    }

    /// Refuses to go on where another work has taken the place of this one.
    async fn is_ours(&self, connection: &mut SqliteConnection) -> Result<(), ServiceError> {
        let found = under_way(connection).await?;
        if found.as_ref() == Some(&self.target()) {
            return Ok(());
        }
        Err(refused(format!(
            "the vectors for {} are not made any more: another `stepgraph reindex` has ended, or goes on for another model",
            embedding_name(self.target().as_ref())
        )))
    }
}

impl SqliteVectors {
    /// Whether what the chunks are embedded with is what questions will be embedded with, and the chunks are here at all.
    ///
    /// # Errors
    /// They are not; the remedy is in the message.
    pub async fn check(&self, embedding: Option<&(ModelName, u32)>) -> Result<(), ServiceError> {
        self.check_place().await?;
        let mut connection = self.readers.acquire().await.map_err(database)?;
        let Some(stored) = another(&mut connection, embedding).await? else {
            return Ok(());
        };
        Err(super::other_embedding(stored.as_ref(), embedding))
    }

    /// Whether the chunks are here.
    ///
    /// # Errors
    /// They were moved to a server; the remedy is in the message.
    pub async fn check_place(&self) -> Result<(), ServiceError> {
        let place: Option<String> = sqlx::query_scalar("SELECT place FROM moved")
            .fetch_optional(&self.readers)
            .await
            .map_err(database)?;
        let Some(place) = place else { return Ok(()) };
        Err(ServiceError::Mismatch {
            service: SERVICE,
            message: format!(
                "the chunks of this data folder were moved to {place}: set QDRANT_URL and QDRANT_COLLECTION, or delete vectors.db to begin without them"
            ),
        })
    }

    /// Removes every chunk, since all of them are at `place` now, and says so to whoever opens the file from then on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn moved_to(&self, place: &str) -> Result<(), ServiceError> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
        for clear in [
            "DELETE FROM posting",
            "DELETE FROM vector",
            "DELETE FROM vector_next",
            "DELETE FROM reindex",
            "DELETE FROM chunk",
            "DELETE FROM tenant",
        ] {
            sqlx::query(clear).execute(&mut *transaction).await.map_err(database)?;
        }
        sqlx::query("INSERT INTO moved (id, place) VALUES (1, ?)")
            .bind(place)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
        transaction.commit().await.map_err(database)?;
        // The pages of what is gone still hold its text until the file is written anew.
        sqlx::query("VACUUM").execute(&self.writer).await.map_err(database)?;
        // The new file stands in the log beside it until that is written back.
        let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&self.writer)
            .await
            .map_err(database)?;
        if busy != 0 {
            tracing::warn!(
                "the file holds the text of what was moved until the next program that opens it has closed it"
            );
        }
        Ok(())
    }
}

/// What some tenant's chunks are embedded with, if that is not `embedding`.
async fn another(
    connection: &mut SqliteConnection,
    embedding: Option<&(ModelName, u32)>,
) -> Result<Option<Embedding>, ServiceError> {
    let (model, dimension) = columns(embedding);
    let row: Option<(Option<String>, Option<i64>)> =
        sqlx::query_as("SELECT model, dimension FROM tenant WHERE model IS NOT ? OR dimension IS NOT ? LIMIT 1")
            .bind(model)
            .bind(dimension)
            .fetch_optional(connection)
            .await
            .map_err(database)?;
    row.map(stored).transpose()
}

async fn under_way(connection: &mut SqliteConnection) -> Result<Option<Embedding>, ServiceError> {
    let row: Option<(Option<String>, Option<i64>)> = sqlx::query_as("SELECT model, dimension FROM reindex")
        .fetch_optional(connection)
        .await
        .map_err(database)?;
    row.map(stored).transpose()
}

fn stored((model, dimension): (Option<String>, Option<i64>)) -> Result<Embedding, ServiceError> {
    let dimension = dimension.map(number).transpose()?;
    Ok(model.map(ModelName::new).zip(dimension))
}

fn columns(embedding: Option<&(ModelName, u32)>) -> (Option<&str>, Option<u32>) {
    embedding.map(|(model, length)| (model.as_str(), *length)).unzip()
}

async fn counts(connection: &mut SqliteConnection, embeds: bool) -> Result<Reindexed, ServiceError> {
    let (chunks, ready): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(next.chunk) FROM chunk \
         LEFT JOIN vector_next AS next ON next.tenant = chunk.tenant AND next.chunk = chunk.id",
    )
    .fetch_one(connection)
    .await
    .map_err(database)?;
    let chunks = number(chunks)?;
    Ok(Reindexed {
        chunks,
        ready: if embeds { number(ready)? } else { chunks },
    })
}

fn packed(row: &MissingRow, vector: &[f32], dimension: u32) -> Result<Vec<u8>, ServiceError> {
    let fits = u32::try_from(vector.len()).is_ok_and(|length| length == dimension);
    let unit = fits.then(|| dense::unit(vector)).flatten();
    let unit = unit.ok_or_else(|| {
        refused(format!(
            "the new vector of a chunk of `{}` is not one of {dimension} components with a direction",
            row.name
        ))
    })?;
    Ok(dense::pack(&unit))
}
