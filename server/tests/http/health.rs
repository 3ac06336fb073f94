//! What anyone may see: health, the root, the demo page.

use axum::http::{Method, StatusCode};
use serde_json::json;
use stepgraph_server::{Demo, HttpSettings, Limits};

use crate::house::{House, SECRET, request};

#[tokio::test]
async fn health_tells_what_the_existing_client_reads() {
    let house = House::new().await;
    for path in ["/health", "/api/widget/health"] {
        let reply = house.send(request(Method::GET, path, &[], String::new())).await;

        let body = reply.json();
        assert_eq!((reply.status, &body["status"]), (StatusCode::OK, &json!("healthy")));
        assert!(chrono::DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());
        assert_eq!(
            (&body["queueSize"], &body["queueCapacity"]),
            (&json!(0), &json!(10_000))
        );
        assert_eq!(
            body["services"],
            json!({"qdrant": true, "redis": true, "anthropic": true, "openai": true})
        );
        assert_eq!(
            body["details"]["openai"], "extractive",
            "what stands in for a provider is named"
        );
        assert!(body["version"].is_string());
    }
}

#[tokio::test]
async fn waiting_documents_are_counted() {
    let house = House::with(HttpSettings {
        document_wait: std::time::Duration::ZERO,
        ..HttpSettings::default()
    })
    .await;
    house.upload("d1", "words").await;

    let reply = house.send(request(Method::GET, "/health", &[], String::new())).await;

    assert_eq!(reply.json()["queueSize"], 1);
}

#[tokio::test]
async fn without_its_records_the_server_is_unhealthy() {
    let house = House::new().await;
    house.pool.close().await;

    let reply = house.send(request(Method::GET, "/health", &[], String::new())).await;

    assert_eq!(
        (reply.status, &reply.json()["status"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("unhealthy"))
    );
    let chat = house.say("hi").await;
    assert_eq!(
        (chat.status, chat.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")
    );
    assert!(chat.header("retry-after").is_some());
}

#[tokio::test]
async fn the_root_names_the_service() {
    let house = House::new().await;
    for path in ["/", "/api/widget"] {
        let reply = house.send(request(Method::GET, path, &[], String::new())).await;
        assert_eq!(
            (&reply.json()["service"], &reply.json()["status"]),
            (&json!("stepgraph"), &json!("running")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_demo_page_holds_its_key_and_lets_nothing_else_in() {
    let demo = Demo {
        public_key: "pk_live_demo".to_owned(),
        title: "Demo".to_owned(),
        questions: vec!["</script><script>alert(1)</script>".to_owned()],
    };
    let house = House::with(HttpSettings {
        demo: Some(demo),
        ..HttpSettings::default()
    })
    .await;

    let reply = house.send(request(Method::GET, "/demo", &[], String::new())).await;

    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.text.contains("pk_live_demo"));
    assert!(
        !reply.text.contains("<script>alert"),
        "settings cannot end their element"
    );
    let policy = reply.header("content-security-policy").unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(policy.starts_with("default-src 'none'"));
    assert_eq!(reply.text.matches(&format!("nonce=\"{nonce}\"")).count(), 3);
    assert!(!reply.text.contains("__"), "no placeholder is left");
    for outside in ["src=\"http", "href=\"http", "@import", "url("] {
        assert!(!reply.text.contains(outside), "the page loads {outside} from elsewhere");
    }
}

#[tokio::test]
async fn a_collector_reads_counts_by_tenant_with_the_secret_alone() {
    let house = House::with(HttpSettings {
        limits: Limits {
            free_messages: 2,
            ..Limits::default()
        },
        ..HttpSettings::default()
    })
    .await;
    for _ in 0..3 {
        house.say("hi").await;
    }
    let ask = async |headers: &[(&str, &str)]| {
        house
            .send(request(Method::GET, "/metrics", headers, String::new()))
            .await
    };

    for refused in [
        ask(&[]).await,
        ask(&[("x-api-key", &house.key)]).await,
        ask(&[("authorization", "Bearer wrong")]).await,
        ask(&[
            ("authorization", &format!("Bearer {SECRET}")),
            ("x-internal-secret", "wrong"),
        ])
        .await,
    ] {
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (StatusCode::UNAUTHORIZED, "INVALID_API_KEY")
        );
    }
    let bearer = ask(&[("authorization", &format!("Bearer {SECRET}"))]).await;
    assert_eq!(bearer.status, StatusCode::OK);
    let reply = ask(&[("x-internal-secret", SECRET)]).await;

    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(reply.text.ends_with("# EOF\n"), "{}", reply.text);
    for line in [
        "stepgraph_chats_total{tenant=\"acme\",outcome=\"answered\"} 2",
        "stepgraph_chats_total{tenant=\"acme\",outcome=\"RATE_LIMITED\"} 1",
        "stepgraph_http_requests_total{method=\"POST\",route=\"/chat\",status=\"200\"} 2",
        "stepgraph_http_requests_total{method=\"POST\",route=\"/chat\",status=\"429\"} 1",
        "stepgraph_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"401\"} 4",
        "stepgraph_http_request_seconds_count{route=\"/chat\"} 3",
        "stepgraph_chat_seconds_count 2",
        "stepgraph_chat_tokens_total{tenant=\"acme\",kind=\"prompt\"}",
        "stepgraph_limits_counted_alone_total 0",
        "stepgraph_up{service=\"records\"} 1",
        "stepgraph_up{service=\"extractive\"} 1",
        "stepgraph_models_held_back 0",
        "stepgraph_ingest_queue_size 0",
        "stepgraph_ingest_queue_capacity 10000",
    ] {
        assert!(
            reply.text.lines().any(|told| told.starts_with(line)),
            "{line} is not in {}",
            reply.text
        );
    }
}
