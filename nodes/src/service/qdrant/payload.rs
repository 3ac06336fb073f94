//! What is stored: points of chunks, and one of each knowledge base.

use std::collections::HashMap;

use qdrant_client::qdrant::{
    DenseVector, NamedVectors, PointId, PointStruct, Struct, Value, Vector, Vectors, value::Kind, vector,
    vectors::VectorsOptions,
};
use stepgraph::TenantId;
use uuid::Uuid;

use super::{corrupt, sparse};
use crate::{
    language::Analyzer,
    service::{Chunk, DocumentId, KnowledgeBase, ModelName, ServiceError, embedded::Indexed},
};

/// Payload keys, as those who share the collection know them.
pub(super) const CLIENT: &str = "client_id";
pub(super) const DOCUMENT: &str = "document_id";
const TITLE: &str = "title";
const CONTENT: &str = "content";
const CHUNK_INDEX: &str = "chunk_index";
const METADATA: &str = "metadata";

/// Names of the vectors.
pub(super) const DENSE: &str = "dense";
pub(super) const SPARSE: &str = "bm25";

/// Payload keys of a knowledge base. It has no `client_id`, so that no search, count or deletion of chunks meets it.
pub(super) const BASE_OF: &str = "knowledge_base_of";
pub(super) const LANGUAGE: &str = "language";
pub(super) const MODEL: &str = "embedding_model";
pub(super) const DIMENSION: &str = "embedding_dimension";

/// Made once for good: another one would lose sight of every knowledge base.
const BASES: Uuid = Uuid::from_u128(0x0b7e_41d9_55c2_4a86_9f10_d2c8_67ab_31e4);

/// The point of a chunk.
pub(super) fn point(
    analyzer: &Analyzer,
    tenant: &TenantId,
    document: &DocumentId,
    id: Uuid,
    chunk: Chunk,
) -> PointStruct {
    let words = sparse::of_chunk(&Indexed::new(analyzer, &chunk));
    let mut vectors = HashMap::new();
    if !words.indices.is_empty() {
        vectors.insert(SPARSE.to_owned(), named(vector::Vector::Sparse(words)));
    }
    if let Some(data) = chunk.dense {
        vectors.insert(DENSE.to_owned(), named(vector::Vector::Dense(DenseVector { data })));
    }
    let payload = HashMap::from([
        (CLIENT.to_owned(), Value::from(tenant.as_str())),
        (DOCUMENT.to_owned(), Value::from(document.as_str())),
        (TITLE.to_owned(), Value::from(chunk.title)),
        (CONTENT.to_owned(), Value::from(chunk.text)),
        (CHUNK_INDEX.to_owned(), Value::from(i64::from(chunk.index))),
        (
            METADATA.to_owned(),
            Value {
                kind: Some(Kind::StructValue(Struct::default())),
            },
        ),
    ]);
    stored(id, payload, vectors)
}

/// The id of a tenant's knowledge base.
pub(super) fn base_id(tenant: &TenantId) -> Uuid {
    Uuid::new_v5(&BASES, tenant.as_str().as_bytes())
}

/// The point of a knowledge base. Without vectors: nothing finds it.
pub(super) fn base_point(tenant: &TenantId, base: &KnowledgeBase) -> PointStruct {
    let mut payload = HashMap::from([
        (BASE_OF.to_owned(), Value::from(tenant.as_str())),
        (LANGUAGE.to_owned(), Value::from(base.language.as_str())),
    ]);
    if let Some((model, dimension)) = &base.embedding {
        payload.insert(MODEL.to_owned(), Value::from(model.as_str()));
        payload.insert(DIMENSION.to_owned(), Value::from(i64::from(*dimension)));
    }
    stored(base_id(tenant), payload, HashMap::new())
}

/// A knowledge base as it is stored.
pub(super) fn base(payload: &HashMap<String, Value>) -> Result<KnowledgeBase, ServiceError> {
    Ok(KnowledgeBase {
        language: text(payload, LANGUAGE)?,
        embedding: embedding(payload)?,
    })
}

/// Model and dimension, where both are stored.
pub(super) fn embedding(stored: &HashMap<String, Value>) -> Result<Option<(ModelName, u32)>, ServiceError> {
    if !stored.contains_key(MODEL) {
        return Ok(None);
    }
    Ok(Some((ModelName::new(text(stored, MODEL)?), number(stored, DIMENSION)?)))
}

/// The tenant that a knowledge base is of.
pub(super) fn owner(payload: &HashMap<String, Value>) -> Result<String, ServiceError> {
    text(payload, BASE_OF)
}

/// The document that a chunk is of.
pub(super) fn document(payload: &HashMap<String, Value>) -> Result<DocumentId, ServiceError> {
    text(payload, DOCUMENT).map(DocumentId::new)
}

/// Document, index and the chunk's title and text.
pub(super) fn chunk(payload: &HashMap<String, Value>) -> Result<(DocumentId, Chunk), ServiceError> {
    let chunk = Chunk {
        index: number(payload, CHUNK_INDEX)?,
        title: text(payload, TITLE)?,
        text: text(payload, CONTENT)?,
        dense: None,
    };
    Ok((DocumentId::new(text(payload, DOCUMENT)?), chunk))
}

fn named(vector: vector::Vector) -> Vector {
    Vector {
        vector: Some(vector),
        ..Vector::default()
    }
}

fn stored(id: Uuid, payload: HashMap<String, Value>, vectors: HashMap<String, Vector>) -> PointStruct {
    PointStruct {
        id: Some(PointId::from(id.to_string())),
        payload,
        vectors: Some(Vectors {
            vectors_options: Some(VectorsOptions::Vectors(NamedVectors { vectors })),
        }),
    }
}

fn text(payload: &HashMap<String, Value>, key: &str) -> Result<String, ServiceError> {
    match payload.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => Ok(text.clone()),
        _ => Err(corrupt(format!(
            "a point without `{key}` as text: was it written by another program?"
        ))),
    }
}

fn number(payload: &HashMap<String, Value>, key: &str) -> Result<u32, ServiceError> {
    let number = match payload.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::IntegerValue(number)) => u32::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        corrupt(format!(
            "a point without `{key}` as a number: was it written by another program?"
        ))
    })
}
