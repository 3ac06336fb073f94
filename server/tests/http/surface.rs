//! What stands around the chat: ratings, settings, vectors.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::service::{
    ChatLog, ChatTurn, Client, ClientSettings, ClientStatus, Clients, Cost, Embedder, Feedbacks, ModelName, Purpose,
    Rating, ServiceError, Tier, Usage,
};
use stepgraph_server::HttpSettings;

use crate::house::{House, client, post};

fn acme() -> TenantId {
    TenantId::authenticated("acme").unwrap()
}

async fn log(house: &House, run: RunId) {
    let turn = ChatTurn {
        run,
        session: "s".to_owned(),
        question: "q".to_owned(),
        answer: "a".to_owned(),
        sources: Vec::new(),
        usage: Usage::default(),
        cost: Cost::default(),
        overage: false,
        model: ModelName::new("fake"),
        latency: std::time::Duration::from_millis(5),
        degraded: false,
        asked_at: chrono::DateTime::UNIX_EPOCH,
    };
    house.clients.write(&acme(), &turn).await.unwrap();
}

#[tokio::test]
async fn the_last_rating_of_an_answer_counts() {
    let house = House::new().await;
    let run = RunId::random();
    log(&house, run).await;
    let rate = |body: Value| house.send(post("/feedback", &[("x-api-key", &house.key)], &body));

    let first = rate(json!({"traceId": run, "rating": "down", "comment": "no"})).await;
    let second = rate(json!({"trace_id": run, "rating": "up"})).await;

    assert_eq!((first.status, first.json()), (StatusCode::OK, json!({"success": true})));
    assert_eq!(second.status, StatusCode::OK);
    let kept = house.clients.rating(&acme(), run).await.unwrap().unwrap();
    assert_eq!((kept.rating, kept.comment), (Rating::Up, None));
    let by_secret = json!({"traceId": run, "rating": "down", "clientId": "acme"});
    let by_secret = house.internal(Method::POST, "/api/widget/feedback", by_secret).await;
    assert_eq!(by_secret.status, StatusCode::OK);
}

#[tokio::test]
async fn a_rating_needs_an_answer_of_the_same_tenant() {
    let house = House::new().await;
    let other = house.clients.put(&client("other")).await.unwrap();
    let run = RunId::random();
    log(&house, run).await;
    let rate = |key: String, body: Value| {
        let house = &house;
        async move {
            house
                .send(post("/feedback", &[("x-api-key", key.as_str())], &body))
                .await
        }
    };

    for (key, trace) in [(&other, run), (&house.key, RunId::random())] {
        let reply = rate(key.clone(), json!({"traceId": trace, "rating": "up"})).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::NOT_FOUND, "unknown_trace")
        );
    }
    for (body, reason) in [
        (json!({"traceId": run, "rating": "so-so"}), "body"),
        (json!({"traceId": "x", "rating": "up"}), "body"),
        (
            json!({"traceId": run, "rating": "up", "comment": "é".repeat(1_001)}),
            "comment_length",
        ),
    ] {
        let reply = rate(house.key.clone(), body).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::BAD_REQUEST, reason)
        );
    }
    let fits = json!({"traceId": run, "rating": "up", "comment": "é".repeat(1_000)});
    assert_eq!(rate(house.key.clone(), fits).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_rating_waits_for_its_answer_to_reach_the_log() {
    let house = House::new().await;
    let trace = house.say("hi").await.json()["traceId"].clone();
    let run = RunId::from(trace.as_str().unwrap().parse::<uuid::Uuid>().unwrap());
    let body = json!({"traceId": trace, "rating": "up"});
    let rated = house.send(post("/feedback", &[("x-api-key", &house.key)], &body));
    tokio::pin!(rated);
    assert!(futures_util::poll!(&mut rated).is_pending());

    log(&house, run).await;

    assert_eq!(rated.await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_internal_service_learns_how_a_client_is_served() {
    let house = House::new().await;
    let settings = ClientSettings {
        model: Some(ModelName::new("own")),
        max_tokens: Some(77),
        hourly_limit: Some(601),
        ..ClientSettings::default()
    };
    let paid = Client {
        tier: Tier::Paid,
        status: ClientStatus::Paused,
        settings,
        ..client("paid")
    };
    house.clients.put(&paid).await.unwrap();

    assert_eq!(
        house.get("/internal/client/acme/config").await.json(),
        json!({
            "clientId": "acme", "tier": "free", "status": "active", "model": "gpt-4o-mini",
            "maxTokensPerRequest": 1_000, "maxRequestsPerMinute": 2, "maxRequestsPerWindow": 100, "windowSeconds": 3_600,
        })
    );
    assert_eq!(
        house.get("/api/widget/internal/client/paid/config").await.json(),
        json!({
            "clientId": "paid", "tier": "paid", "status": "paused", "model": "own",
            "maxTokensPerRequest": 77, "maxRequestsPerMinute": 11, "maxRequestsPerWindow": 601, "windowSeconds": 3_600,
        })
    );
    let unknown = house.get("/internal/client/nobody/config").await;
    assert_eq!(
        (unknown.status, unknown.reason().as_str()),
        (StatusCode::NOT_FOUND, "unknown_client")
    );
}

/// Vectors of the length of each text.
struct Lengths(ModelName);

#[async_trait]
impl Embedder for Lengths {
    fn model(&self) -> &ModelName {
        &self.0
    }

    fn dimension(&self) -> u32 {
        1
    }

    async fn embed(&self, tenant: &TenantId, _: Purpose, texts: &[String]) -> Result<Vec<Vec<f32>>, ServiceError> {
        assert_eq!(tenant.as_str(), "acme");
        let length = |text: &String| f32::from(u16::try_from(text.len()).unwrap());
        Ok(texts.iter().map(|text| vec![length(text)]).collect())
    }
}

#[tokio::test]
async fn texts_become_vectors_in_order() {
    let embedder = Some(Arc::new(Lengths(ModelName::new("lengths"))) as Arc<dyn Embedder>);
    let house = House::with_embedder(HttpSettings::default(), embedder).await;
    let embed = |texts: Value| house.internal(Method::POST, "/embed", json!({"clientId": "acme", "texts": texts}));

    let reply = embed(json!(["a", "bcd"])).await;

    assert_eq!(
        reply.json(),
        json!({"model": "lengths", "dimension": 1, "vectors": [[1.0], [3.0]]})
    );
    assert_eq!(embed(json!(vec!["x"; 256])).await.status, StatusCode::OK);
    assert_eq!(embed(json!(vec!["x"; 257])).await.reason(), "texts");
    assert_eq!(embed(json!([])).await.reason(), "texts");
    assert_eq!(embed(json!([""])).await.reason(), "text_length");
    assert_eq!(embed(json!(["x".repeat(8_001)])).await.reason(), "text_length");
}

#[tokio::test]
async fn without_an_embedding_model_no_vectors_are_made() {
    let house = House::new().await;

    let reply = house
        .internal(Method::POST, "/embed", json!({"client_id": "acme", "texts": ["a"]}))
        .await;

    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::BAD_REQUEST, "no_embedding_model")
    );
}
