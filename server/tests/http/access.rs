//! Who may ask what.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use stepgraph_nodes::service::{Client, ClientStatus, Clients};

use crate::house::{House, SECRET, chat_body, client, post, request};

/// Every route that needs credentials, with whether a public key opens it.
const GUARDED: [(Method, &str, bool); 7] = [
    (Method::POST, "/chat", true),
    (Method::POST, "/chat/stream", true),
    (Method::POST, "/process-document", false),
    (Method::GET, "/documents/d1/status", false),
    (Method::GET, "/documents", false),
    (Method::DELETE, "/documents/d1", false),
    (Method::POST, "/internal/validate-client", false),
];

#[tokio::test]
async fn without_credentials_every_guarded_route_refuses_at_both_mounts() {
    let house = House::new().await;
    for mount in ["", "/api/widget"] {
        for (method, path, _) in GUARDED {
            let reply = house
                .send(request(
                    method.clone(),
                    &format!("{mount}{path}"),
                    &[],
                    chat_body("hi").to_string(),
                ))
                .await;

            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{method} {mount}{path}");
            assert_eq!(reply.code(), "INVALID_API_KEY");
        }
    }
}

#[tokio::test]
async fn a_public_key_opens_the_chat_and_nothing_else() {
    let house = House::new().await;
    for (method, path, opens) in GUARDED {
        let reply = house
            .send(request(
                method.clone(),
                path,
                &[("x-api-key", &house.key)],
                chat_body(path).to_string(),
            ))
            .await;

        let expected = if opens {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(reply.status, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_even_beside_a_good_key() {
    let house = House::new().await;
    let headers = [("x-internal-secret", "guess"), ("x-api-key", house.key.as_str())];

    let reply = house.send(post("/chat", &headers, &chat_body("hi"))).await;

    assert_eq!(
        (reply.status, reply.code().as_str()),
        (StatusCode::UNAUTHORIZED, "INVALID_API_KEY")
    );
    assert_eq!(house.chat.runs(), 0);
}

#[tokio::test]
async fn a_right_secret_wins_and_the_body_names_the_tenant() {
    let house = House::new().await;
    house.clients.put(&client("other")).await.unwrap();
    let headers = [("x-internal-secret", SECRET), ("x-api-key", house.key.as_str())];
    let mut body = chat_body("hi");
    body["clientId"] = "other".into();

    let reply = house.send(post("/chat", &headers, &body)).await;

    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(house.chat.commands.lock().unwrap()[0].client.tenant.as_str(), "other");
}

#[tokio::test]
async fn the_internal_service_must_name_a_tenant_that_exists() {
    let house = House::new().await;
    for (id, reason) in [
        (Value::Null, "client_id"),
        (json!(""), "client_id"),
        (json!("nobody"), "unknown_client"),
    ] {
        let mut body = chat_body("hi");
        body["clientId"] = id;
        let reply = house.internal(Method::POST, "/chat", body).await;

        assert_eq!(
            (reply.status, reply.code().as_str()),
            (StatusCode::BAD_REQUEST, "INVALID_REQUEST")
        );
        assert_eq!(reply.reason(), reason);
    }
}

#[tokio::test]
async fn a_key_fixes_the_tenant() {
    let house = House::new().await;
    house.clients.put(&client("other")).await.unwrap();
    let mut body = chat_body("hi");
    body["clientId"] = "other".into();
    let headers = [("x-api-key", house.key.as_str())];

    let foreign = house.send(post("/chat", &headers, &body)).await;
    body["clientId"] = "acme".into();
    let own = house.send(post("/chat", &headers, &body)).await;

    assert_eq!(
        (foreign.status, foreign.code().as_str()),
        (StatusCode::FORBIDDEN, "INVALID_API_KEY")
    );
    assert_eq!(own.status, StatusCode::OK);
}

#[tokio::test]
async fn unknown_keys_and_inactive_clients_are_refused_alike() {
    let house = House::new().await;
    let unknown = house
        .send(post("/chat", &[("x-api-key", "pk_live_nobody")], &chat_body("hi")))
        .await;
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (StatusCode::UNAUTHORIZED, "INVALID_API_KEY")
    );

    for (status, name) in [(ClientStatus::Paused, "paused"), (ClientStatus::Disabled, "disabled")] {
        let key = house.clients.put(&Client { status, ..client(name) }).await.unwrap();
        let by_key = house
            .send(post("/chat", &[("x-api-key", &key)], &chat_body("hi")))
            .await;
        let mut body = chat_body("hi");
        body["clientId"] = name.into();
        let by_secret = house.internal(Method::POST, "/chat", body).await;

        for reply in [by_key, by_secret] {
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (StatusCode::UNAUTHORIZED, "INVALID_API_KEY")
            );
            assert_eq!(reply.json()["error"]["details"]["status"], name);
        }
    }
    assert_eq!(house.chat.runs(), 0);
}

#[tokio::test]
async fn pages_of_other_domains_are_refused() {
    let house = House::new().await;
    let mut tenant = client("shop");
    tenant.settings.allowed_domains = vec!["*.shop.example".to_owned()];
    let key = house.clients.put(&tenant).await.unwrap();
    let cases = [
        (vec![("origin", "https://www.shop.example")], StatusCode::OK),
        (vec![("referer", "https://www.shop.example/page")], StatusCode::OK),
        (vec![], StatusCode::OK),
        (vec![("origin", "https://evilshop.example")], StatusCode::FORBIDDEN),
        (vec![("origin", "null")], StatusCode::FORBIDDEN),
    ];
    for (mut headers, expected) in cases {
        headers.push(("x-api-key", &key));
        let reply = house.send(post("/chat", &headers, &chat_body("hi"))).await;

        assert_eq!(reply.status, expected, "{headers:?}");
        if expected == StatusCode::FORBIDDEN {
            assert_eq!(
                (reply.code().as_str(), reply.reason().as_str()),
                ("INVALID_API_KEY", "DEPLOYMENT_NOT_ALLOWED")
            );
        }
    }
}

#[tokio::test]
async fn browsers_of_any_page_may_ask_with_a_key() {
    let house = House::new().await;
    let headers = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-api-key,content-type"),
    ];
    let preflight = house
        .send(request(Method::OPTIONS, "/chat", &headers, String::new()))
        .await;

    assert_eq!(preflight.status, StatusCode::OK);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert!(
        preflight
            .header("access-control-allow-headers")
            .unwrap()
            .contains("x-api-key")
    );
    let refused = house
        .send(post("/chat", &[("origin", "https://shop.example")], &chat_body("hi")))
        .await;
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("*"),
        "a script must be able to read the error"
    );
}

#[tokio::test]
async fn unknown_addresses_and_methods_answer_in_the_envelope() {
    let house = House::new().await;
    for path in ["/nothing", "/api/widget/nothing", "/api/nothing", "/demo"] {
        let reply = house.get(path).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (StatusCode::NOT_FOUND, "INVALID_REQUEST"),
            "{path}"
        );
    }
    for path in ["/chat", "/api/widget/chat"] {
        let reply = house.get(path).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (StatusCode::METHOD_NOT_ALLOWED, "INVALID_REQUEST"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_request_id_is_echoed_or_made() {
    let house = House::new().await;
    let echoed = house
        .send(request(Method::GET, "/", &[("x-request-id", "mine-1")], String::new()))
        .await;
    let made = house.send(request(Method::GET, "/nothing", &[], String::new())).await;

    assert_eq!(echoed.header("x-request-id"), Some("mine-1"));
    assert_eq!(made.header("x-request-id"), made.json()["traceId"].as_str());
}

#[tokio::test]
async fn keys_are_validated_for_the_internal_service() {
    let house = House::new().await;
    let paused = house
        .clients
        .put(&Client {
            status: ClientStatus::Paused,
            ..client("sleepy")
        })
        .await
        .unwrap();

    let good = house
        .internal(Method::POST, "/internal/validate-client", json!({"apiKey": house.key}))
        .await;
    assert_eq!(
        good.json(),
        json!({"valid": true, "clientId": "acme", "tier": "free", "model": "gpt-4o-mini", "allowedDomains": []})
    );
    let snake = house
        .internal(
            Method::POST,
            "/api/widget/internal/validate-client",
            json!({"api_key": house.key}),
        )
        .await;
    assert_eq!(snake.json()["valid"], true);
    let headers = [("x-internal-secret", SECRET)];
    let query = format!("/internal/validate-client?apiKey={}", house.key);
    let query = house.send(request(Method::POST, &query, &headers, String::new())).await;
    assert_eq!(query.json()["clientId"], "acme");

    let unknown = house
        .internal(
            Method::POST,
            "/internal/validate-client",
            json!({"apiKey": "pk_live_nobody"}),
        )
        .await;
    assert_eq!(unknown.status, StatusCode::OK);
    assert_eq!(
        unknown.json(),
        json!({"valid": false, "errorMessage": "unknown API key"})
    );
    let sleepy = house
        .internal(Method::POST, "/internal/validate-client", json!({"apiKey": paused}))
        .await;
    assert_eq!(
        (&sleepy.json()["valid"], &sleepy.json()["clientId"]),
        (&json!(false), &json!("sleepy"))
    );
    let nothing = house
        .internal(Method::POST, "/internal/validate-client", json!({}))
        .await;
    assert_eq!(
        (nothing.status, nothing.code().as_str()),
        (StatusCode::BAD_REQUEST, "INVALID_REQUEST")
    );
}
