//! Embeddings by the protocol of OpenAI.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use stepgraph_nodes::{
    service::{Embedder, ModelName, Purpose, ServiceError, openai::OpenAiEmbedder, resilience::ResilientEmbedder},
    trace,
};

use crate::server::{Provider, TRACE, limits, status, tenant};

fn embedder(provider: &Provider, dimension: u32) -> OpenAiEmbedder {
    OpenAiEmbedder::new(&provider.options(), ModelName::new("small"), dimension).unwrap()
}

fn answer(vectors: &Value) -> Response {
    Json(json!({"data": vectors})).into_response()
}

#[tokio::test]
async fn vectors_come_back_in_the_order_of_their_texts() {
    let provider = Provider::answering(|_| {
        answer(&json!([{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]))
    })
    .await;
    let texts = ["one".to_owned(), "two".to_owned()];

    let embedder = embedder(&provider, 2);
    let tenant = tenant();
    let embed = embedder.embed(&tenant, Purpose::Document, &texts);
    let vectors = trace::within(TRACE.parse().ok(), embed).await.unwrap();

    assert_eq!(vectors, [[1.0, 0.0], [0.0, 1.0]]);
    assert_eq!(
        provider.last_body(),
        json!({"model": "small", "input": ["one", "two"], "encoding_format": "float"})
    );
    assert_eq!(provider.last_header("traceparent").as_deref(), Some(TRACE));
}

#[tokio::test]
async fn vectors_that_do_not_fit_what_was_asked_are_errors() {
    let bodies = [
        json!([{"index": 0, "embedding": [1.0, 0.0, 0.0]}]),
        json!([{"index": 0, "embedding": [1.0, 0.0]}, {"index": 1, "embedding": [1.0, 0.0]}]),
        json!([{"index": 1, "embedding": [1.0, 0.0]}]),
        json!([]),
        json!([{"index": 0, "embedding": [1.0, 1e300]}]),
    ];
    let count = bodies.len();
    let provider = Provider::answering(move |call| answer(&bodies[call])).await;
    let embedder = embedder(&provider, 2);

    for call in 0..count {
        let error = embedder
            .embed(&tenant(), Purpose::Query, &["one".to_owned()])
            .await
            .unwrap_err();

        match error {
            ServiceError::Mismatch { .. } => assert!(call == 0 && error.to_string().contains("anew"), "{error}"),
            other => assert!(call > 0 && other.code() == "service::corrupt", "{call}: {other}"),
        }
    }
}

#[tokio::test]
async fn many_texts_go_in_batches_and_only_the_one_that_failed_goes_again() {
    let provider = Provider::answering(|call| {
        let count = if call == 3 { 88 } else { 256 };
        if call == 1 {
            return status(503, &[("retry-after", "0")], &json!({}));
        }
        let vectors: Vec<Value> = (0..count)
            .map(|index| json!({"index": index, "embedding": [call]}))
            .collect();
        answer(&Value::from(vectors))
    })
    .await;
    let texts: Vec<String> = (0..600).map(|at| at.to_string()).collect();
    let layer = ResilientEmbedder::new("embedder", Arc::new(embedder(&provider, 1)), limits());

    let vectors = layer.embed(&tenant(), Purpose::Document, &texts).await.unwrap();

    let of_call = |call: f32| vectors.iter().filter(|vector| **vector == [call]).count();
    assert_eq!((vectors.len(), provider.calls()), (600, 4));
    assert_eq!((of_call(0.0), of_call(2.0), of_call(3.0)), (256, 256, 88));
    assert_eq!((layer.model().as_str(), layer.dimension()), ("small", 1));
}
