//! The collection: made once, and looked at by everyone who opens it.

use std::collections::HashMap;

use qdrant_client::{
    Qdrant, QdrantError,
    qdrant::{
        CollectionInfo, CreateCollection, CreateFieldIndexCollection, Distance, FieldType, HnswConfigDiff,
        KeywordIndexParams, Modifier, PayloadIndexParams, SparseVectorConfig, SparseVectorParams, Value, VectorParams,
        VectorParamsMap, VectorsConfig, payload_index_params::IndexParams, vectors_config,
    },
};

use super::{
    QdrantOptions, SERVICE, corrupt, failed,
    payload::{CLIENT, DENSE, DIMENSION, DOCUMENT, MODEL, SPARSE, embedding},
};
use crate::service::{ModelName, ServiceError, vectors::embedding_name};

/// Metadata key that says who has made the collection, and how its sparse vectors are made.
const FORMAT: &str = "stepgraph_format";
/// Counts up when points of before cannot be searched together with new ones.
const FORMAT_NUMBER: i64 = 1;

/// Links of a chunk to others of its tenant; there are none across tenants.
const LINKS_IN_TENANT: u64 = 16;

/// gRPC's number of `ALREADY_EXISTS`.
const ALREADY_EXISTS: i32 = 6;

/// Makes the collection where there is none, and refuses one that does not fit.
pub(super) async fn ensure(client: &Qdrant, options: &QdrantOptions) -> Result<(), ServiceError> {
    let name = options.collection.as_str();
    if !client.collection_exists(name).await.map_err(failed)? {
        match client.create_collection(create(options)).await {
            // Another process was as fast.
            Err(QdrantError::ResponseError { status }) if i32::from(status.code()) == ALREADY_EXISTS => {}
            made => {
                made.map_err(failed)?;
            }
        }
    }
    let info = client.collection_info(name).await.map_err(failed)?.result;
    let info = info.ok_or_else(|| corrupt(format!("nothing is told about the collection `{name}`")))?;
    check(&info, options)?;
    for (field, is_tenant) in [(CLIENT, true), (DOCUMENT, false)] {
        if !info.payload_schema.contains_key(field) {
            client
                .create_field_index(index(name, field, is_tenant))
                .await
                .map_err(failed)?;
        }
    }
    Ok(())
}

pub(super) fn create(options: &QdrantOptions) -> CreateCollection {
    let mut metadata = HashMap::from([(FORMAT.to_owned(), Value::from(FORMAT_NUMBER))]);
    let mut dense = HashMap::new();
    if let Some((model, dimension)) = &options.embedding {
        metadata.insert(MODEL.to_owned(), Value::from(model.as_str()));
        metadata.insert(DIMENSION.to_owned(), Value::from(i64::from(*dimension)));
        let params = VectorParams {
            size: u64::from(*dimension),
            distance: Distance::Cosine.into(),
            ..VectorParams::default()
        };
        dense.insert(DENSE.to_owned(), params);
    }
    let sparse = SparseVectorParams {
        modifier: Some(Modifier::Idf.into()),
        ..SparseVectorParams::default()
    };
    CreateCollection {
        collection_name: options.collection.clone(),
        hnsw_config: Some(HnswConfigDiff {
            m: Some(0),
            payload_m: Some(LINKS_IN_TENANT),
            ..HnswConfigDiff::default()
        }),
        vectors_config: Some(VectorsConfig {
            config: Some(vectors_config::Config::ParamsMap(VectorParamsMap { map: dense })),
        }),
        sparse_vectors_config: Some(SparseVectorConfig {
            map: HashMap::from([(SPARSE.to_owned(), sparse)]),
        }),
        metadata,
        ..CreateCollection::default()
    }
}

fn index(collection: &str, field: &str, is_tenant: bool) -> CreateFieldIndexCollection {
    CreateFieldIndexCollection {
        collection_name: collection.to_owned(),
        wait: Some(true),
        field_name: field.to_owned(),
        field_type: Some(FieldType::Keyword.into()),
        field_index_params: Some(PayloadIndexParams {
            index_params: Some(IndexParams::KeywordIndexParams(KeywordIndexParams {
                is_tenant: Some(is_tenant),
                ..KeywordIndexParams::default()
            })),
        }),
        ..CreateFieldIndexCollection::default()
    }
}

/// What a collection that is there is embedded with.
pub(super) async fn stored_embedding(
    client: &Qdrant,
    options: &QdrantOptions,
) -> Result<Option<(ModelName, u32)>, ServiceError> {
    let name = options.collection.as_str();
    if !client.collection_exists(name).await.map_err(failed)? {
        return Err(super::refused(format!(
            "there is no collection `{name}`: check its name"
        )));
    }
    let info = client.collection_info(name).await.map_err(failed)?.result;
    let metadata = info.and_then(|info| info.config).map(|config| config.metadata);
    embedding(&metadata.unwrap_or_default())
}

fn check(info: &CollectionInfo, options: &QdrantOptions) -> Result<(), ServiceError> {
    let metadata = info.config.as_ref().map(|config| &config.metadata);
    let format = metadata.and_then(|metadata| metadata.get(FORMAT));
    let (Some(metadata), Some(format)) = (metadata, format) else {
        return Err(ServiceError::Mismatch {
            service: SERVICE,
            message: format!(
                "the collection `{}` was made by another program: name another one by QDRANT_COLLECTION, it is made",
                options.collection
            ),
        });
    };
    if *format != Value::from(FORMAT_NUMBER) {
        return Err(ServiceError::Mismatch {
            service: SERVICE,
            message: format!(
                "the collection `{}` is of another version of stepgraph: use that, or name another by QDRANT_COLLECTION and ingest the documents into it",
                options.collection
            ),
        });
    }
    let stored = embedding(metadata)?;
    if stored == options.embedding {
        return Ok(());
    }
    Err(mismatch(stored.as_ref(), options.embedding.as_ref()))
}

/// The difference of two embeddings, with the remedy.
pub(super) fn mismatch(stored: Option<&(ModelName, u32)>, asked: Option<&(ModelName, u32)>) -> ServiceError {
    ServiceError::Mismatch {
        service: SERVICE,
        message: format!(
            "its chunks are embedded with {}, not {}: set that model again, or name a new collection by QDRANT_COLLECTION and embed the chunks anew into it with `stepgraph reindex --from` this one",
            embedding_name(stored),
            embedding_name(asked)
        ),
    }
}
