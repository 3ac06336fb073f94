//! Reading the collection out.

use std::collections::BTreeSet;

use async_trait::async_trait;
use qdrant_client::qdrant::{
    DenseVector, Filter, PointId, RetrievedPoint, ScrollPoints, VectorsOutput, vector_output, vectors_output,
};
use stepgraph::TenantId;

use super::{QdrantVectors, corrupt, failed, payload, request};
use crate::service::{Chunk, DocumentId, ServiceError, VectorCatalog};

#[async_trait]
impl VectorCatalog for QdrantVectors {
    async fn tenants(&self) -> Result<Vec<TenantId>, ServiceError> {
        self.ready().await?;
        let points = self.all(|offset| request::bases(self.name(), offset)).await?;
        let tenant = |point: &RetrievedPoint| {
            let name = payload::owner(&point.payload)?;
            TenantId::authenticated(name).map_err(|error| corrupt(error.to_string()))
        };
        points.iter().map(tenant).collect()
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, ServiceError> {
        self.ready().await?;
        let (filter, mut names) = (request::of_tenant(tenant), BTreeSet::new());
        let mut offset = None;
        loop {
            let page = request::names(self.name(), filter.clone(), offset);
            let found = self.calling().scroll(page).await.map_err(failed)?;
            for point in &found.result {
                names.insert(payload::document(&point.payload)?);
            }
            offset = found.next_page_offset;
            if offset.is_none() {
                return Ok(names.into_iter().collect());
            }
        }
    }

    async fn chunks(&self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<Chunk>, ServiceError> {
        self.ready().await?;
        let filter: Filter = request::of_document(tenant, document);
        let points = self
            .all(|offset| request::whole(self.name(), filter.clone(), offset))
            .await?;
        let chunk = |point: RetrievedPoint| {
            let (_, chunk) = payload::chunk(&point.payload)?;
            Ok(Chunk {
                dense: dense(point.vectors),
                ..chunk
            })
        };
        let mut chunks: Vec<Chunk> = points.into_iter().map(chunk).collect::<Result<_, ServiceError>>()?;
        chunks.sort_by_key(|chunk| chunk.index);
        Ok(chunks)
    }
}

impl QdrantVectors {
    /// Every point of a listing, page by page.
    async fn all(&self, page: impl Fn(Option<PointId>) -> ScrollPoints) -> Result<Vec<RetrievedPoint>, ServiceError> {
        let (mut points, mut offset) = (Vec::new(), None);
        loop {
            let found = self.calling().scroll(page(offset)).await.map_err(failed)?;
            points.extend(found.result);
            offset = found.next_page_offset;
            if offset.is_none() {
                return Ok(points);
            }
        }
    }
}

fn dense(vectors: Option<VectorsOutput>) -> Option<Vec<f32>> {
    let Some(vectors_output::VectorsOptions::Vectors(mut named)) = vectors?.vectors_options else {
        return None;
    };
    match named.vectors.remove(payload::DENSE)?.vector {
        Some(vector_output::Vector::Dense(DenseVector { data })) => Some(data),
        _ => None,
    }
}
