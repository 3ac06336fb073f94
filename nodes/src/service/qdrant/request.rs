//! Every request that is made, as a value. Pure, so that a test can take the tenant out of each and see what leaks.

use qdrant_client::qdrant::{
    Condition, CountPoints, DeletePoints, DenseVector, Filter, GetPoints, IdfParams, PayloadIncludeSelector, PointId,
    PointStruct, PointsSelector, PrefetchQuery, Query, QueryPoints, Rrf, ScrollPoints, SearchParams, SparseVector,
    UpdateMode, UpsertPoints, VectorInput, VectorsSelector, WithPayloadSelector, WithVectorsSelector,
    points_selector::PointsSelectorOneOf, query, vector_input, with_payload_selector, with_vectors_selector,
};
use stepgraph::TenantId;
use uuid::Uuid;

use super::payload::{BASE_OF, CLIENT, DENSE, DOCUMENT, SPARSE};
use crate::service::DocumentId;

/// Constant of reciprocal rank fusion. The server counts ranks from 0 and the embedded store from 1, with 60.
const RANK_OFFSET: u32 = 61;

/// Points listed at once.
const POINTS_PER_PAGE: u32 = 256;

/// How deep each list is read for fusion at least.
const FUSION_DEPTH_MIN: u64 = 100;

/// The chunks of a tenant.
pub(super) fn of_tenant(tenant: &TenantId) -> Filter {
    Filter::must([Condition::matches(CLIENT, tenant.as_str().to_owned())])
}

/// The point that says what is fixed for a tenant.
pub(super) fn base_of(tenant: &TenantId) -> Filter {
    Filter::must([Condition::matches(BASE_OF, tenant.as_str().to_owned())])
}

/// The chunks of a tenant's document.
pub(super) fn of_document(tenant: &TenantId, document: &DocumentId) -> Filter {
    let mut filter = of_tenant(tenant);
    filter
        .must
        .push(Condition::matches(DOCUMENT, document.as_str().to_owned()));
    filter
}

/// A search: by words, by meaning, or by both with their ranks fused. `None` where there is nothing to search by.
pub(super) fn search(
    collection: &str,
    tenant: &TenantId,
    words: Option<SparseVector>,
    meaning: Option<Vec<f32>>,
    limit: u64,
) -> Option<QueryPoints> {
    let depth = limit.max(FUSION_DEPTH_MIN);
    let by_words = words.map(|words| (SPARSE, vector_input::Variant::Sparse(words)));
    let whole = QueryPoints {
        collection_name: collection.to_owned(),
        filter: Some(of_tenant(tenant)),
        limit: Some(limit),
        with_payload: Some(WithPayloadSelector {
            selector_options: Some(with_payload_selector::SelectorOptions::Enable(true)),
        }),
        ..QueryPoints::default()
    };
    let Some(data) = meaning else {
        let (using, vector) = by_words?;
        return Some(QueryPoints {
            query: Some(nearest(vector)),
            using: Some(using.to_owned()),
            params: Some(rarity_inside(tenant)),
            ..whole
        });
    };
    let by_meaning = (DENSE, vector_input::Variant::Dense(DenseVector { data }));
    let prefetch = |(using, vector): (&str, vector_input::Variant)| PrefetchQuery {
        query: Some(nearest(vector)),
        using: Some(using.to_owned()),
        filter: Some(of_tenant(tenant)),
        params: (using == SPARSE).then(|| rarity_inside(tenant)),
        limit: Some(depth),
        ..PrefetchQuery::default()
    };
    Some(QueryPoints {
        // To tell how near in meaning each chunk is: the fused score tells its rank alone.
        with_vectors: Some(including(DENSE)),
        prefetch: by_words.into_iter().chain([by_meaning]).map(prefetch).collect(),
        query: Some(Query {
            variant: Some(query::Variant::Rrf(Rrf {
                k: Some(RANK_OFFSET),
                weights: Vec::new(),
            })),
        }),
        ..whole
    })
}

/// The chunk where one term counts most, with its sparse vector: what tells how rare the term is.
pub(super) fn rarity(collection: &str, tenant: &TenantId, term: SparseVector) -> QueryPoints {
    QueryPoints {
        collection_name: collection.to_owned(),
        filter: Some(of_tenant(tenant)),
        query: Some(nearest(vector_input::Variant::Sparse(term))),
        using: Some(SPARSE.to_owned()),
        params: Some(rarity_inside(tenant)),
        limit: Some(1),
        with_vectors: Some(including(SPARSE)),
        ..QueryPoints::default()
    }
}

fn including(vector: &str) -> WithVectorsSelector {
    WithVectorsSelector {
        selector_options: Some(with_vectors_selector::SelectorOptions::Include(VectorsSelector {
            names: vec![vector.to_owned()],
        })),
    }
}

/// How rare a word is, is counted in the tenant's chunks alone: nobody's documents show in another's scores.
fn rarity_inside(tenant: &TenantId) -> SearchParams {
    SearchParams {
        idf: Some(IdfParams {
            corpus: Some(of_tenant(tenant)),
        }),
        ..SearchParams::default()
    }
}

fn nearest(vector: vector_input::Variant) -> Query {
    Query {
        variant: Some(query::Variant::Nearest(VectorInput { variant: Some(vector) })),
    }
}

/// How many points there are, to the last one.
pub(super) fn count(collection: &str, filter: Filter) -> CountPoints {
    CountPoints {
        collection_name: collection.to_owned(),
        filter: Some(filter),
        exact: Some(true),
        ..CountPoints::default()
    }
}

/// Writes points, and waits until they are found.
pub(super) fn upsert(collection: &str, points: Vec<PointStruct>) -> UpsertPoints {
    UpsertPoints {
        collection_name: collection.to_owned(),
        wait: Some(true),
        points,
        ..UpsertPoints::default()
    }
}

/// Writes a point unless it is there.
pub(super) fn insert(collection: &str, point: PointStruct) -> UpsertPoints {
    UpsertPoints {
        update_mode: Some(UpdateMode::InsertOnly.into()),
        ..upsert(collection, vec![point])
    }
}

/// Deletes points, and waits until they are found no more.
pub(super) fn delete(collection: &str, filter: Filter) -> DeletePoints {
    DeletePoints {
        collection_name: collection.to_owned(),
        wait: Some(true),
        points: Some(PointsSelector {
            points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter)),
        }),
        ..DeletePoints::default()
    }
}

/// Deletes what the documents had before and have no more.
pub(super) fn delete_stale(
    collection: &str,
    tenant: &TenantId,
    documents: &[DocumentId],
    kept: &[Uuid],
) -> DeletePoints {
    let mut filter = of_tenant(tenant);
    let names: Vec<String> = documents.iter().map(|document| document.as_str().to_owned()).collect();
    filter.must.push(Condition::matches(DOCUMENT, names));
    if !kept.is_empty() {
        filter
            .must_not
            .push(Condition::has_id(kept.iter().map(|id| PointId::from(id.to_string()))));
    }
    delete(collection, filter)
}

/// Reads one point by its id, which is made of the tenant.
pub(super) fn get(collection: &str, id: Uuid) -> GetPoints {
    GetPoints {
        collection_name: collection.to_owned(),
        ids: vec![PointId::from(id.to_string())],
        with_payload: Some(WithPayloadSelector {
            selector_options: Some(with_payload_selector::SelectorOptions::Enable(true)),
        }),
        ..GetPoints::default()
    }
}

/// The knowledge bases of all tenants: for the operator's move of a whole collection.
pub(super) fn bases(collection: &str, offset: Option<PointId>) -> ScrollPoints {
    // Points of chunks have a `client_id`, those of knowledge bases have none.
    let filter = Filter::must([Condition::is_empty(CLIENT)]);
    scroll(
        collection,
        filter,
        offset,
        with_payload_selector::SelectorOptions::Enable(true),
    )
}

/// The documents' ids of points.
pub(super) fn names(collection: &str, filter: Filter, offset: Option<PointId>) -> ScrollPoints {
    let fields = PayloadIncludeSelector {
        fields: vec![DOCUMENT.to_owned()],
    };
    scroll(
        collection,
        filter,
        offset,
        with_payload_selector::SelectorOptions::Include(fields),
    )
}

/// Points with all they have.
pub(super) fn whole(collection: &str, filter: Filter, offset: Option<PointId>) -> ScrollPoints {
    ScrollPoints {
        with_vectors: Some(WithVectorsSelector {
            selector_options: Some(with_vectors_selector::SelectorOptions::Enable(true)),
        }),
        ..scroll(
            collection,
            filter,
            offset,
            with_payload_selector::SelectorOptions::Enable(true),
        )
    }
}

fn scroll(
    collection: &str,
    filter: Filter,
    offset: Option<PointId>,
    payload: with_payload_selector::SelectorOptions,
) -> ScrollPoints {
    ScrollPoints {
        collection_name: collection.to_owned(),
        filter: Some(filter),
        offset,
        limit: Some(POINTS_PER_PAGE),
        with_payload: Some(WithPayloadSelector {
            selector_options: Some(payload),
        }),
        ..ScrollPoints::default()
    }
}
