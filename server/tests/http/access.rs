//! Who may ask what.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use stepgraph_nodes::service::{Client, ClientStatus, Clients, Tier};
use stepgraph_server::HttpSettings;

use crate::house::{House, SECRET, SESSION, chat_body, client, post, request};

/// Every route that needs credentials, with whether a public key opens it.
const GUARDED: [(Method, &str, bool); 9] = [
    (Method::POST, "/chat", true),
    (Method::POST, "/chat/stream", true),
    (Method::POST, "/process-document", false),
    (Method::GET, "/documents/d1/status", false),
    (Method::GET, "/documents", false),
    (Method::DELETE, "/documents/d1", false),
    (Method::POST, "/internal/validate-client", false),
    (Method::GET, "/internal/client/acme/config", false),
    (Method::POST, "/embed", false),
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
async fn a_page_may_ask_before_it_is_known_whose_page_it_is() {
    let house = House::new().await;
    let headers = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-api-key,content-type,traceparent"),
    ];
    for path in ["/chat", "/api/widget/chat/stream", "/feedback"] {
        let reply = house
            .send(request(Method::OPTIONS, path, &headers, String::new()))
            .await;

        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{path}");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://shop.example")
        );
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        assert_eq!(reply.header("vary"), Some("origin"));
        let allowed = reply.header("access-control-allow-headers").unwrap();
        assert!(
            ["x-api-key", "content-type", "traceparent", "last-event-id"]
                .iter()
                .all(|name| allowed.contains(name)),
            "{allowed}"
        );
    }
    let opaque = [("origin", "null"), ("access-control-request-method", "POST")];
    let opaque = house
        .send(request(Method::OPTIONS, "/chat", &opaque, String::new()))
        .await;
    assert_eq!(opaque.header("access-control-allow-origin"), None);
    let internal = house
        .send(request(Method::OPTIONS, "/process-document", &headers, String::new()))
        .await;
    assert_eq!(
        (internal.status, internal.header("access-control-allow-origin")),
        (StatusCode::METHOD_NOT_ALLOWED, None)
    );
}

#[tokio::test]
async fn an_answer_is_for_pages_of_the_tenants_domains() {
    let house = House::new().await;
    let mut tenant = client("shop");
    tenant.settings.allowed_domains = vec!["shop.example".to_owned()];
    let key = house.clients.put(&tenant).await.unwrap();
    let ask = |origin: &'static str, key: &str| {
        house.send(post(
            "/chat",
            &[("origin", origin), ("x-api-key", key)],
            &chat_body("hi"),
        ))
    };

    let own = ask("https://shop.example", &key).await;
    let foreign = ask("https://evil.example", &key).await;
    let unknown = ask("https://evil.example", "pk_live_nobody").await;

    assert_eq!(own.header("access-control-allow-origin"), Some("https://shop.example"));
    assert!(
        own.header("access-control-expose-headers")
            .unwrap()
            .contains("x-ratelimit-remaining")
    );
    assert_eq!(
        (foreign.status, foreign.header("access-control-allow-origin")),
        (StatusCode::FORBIDDEN, None)
    );
    assert_eq!(
        (unknown.status, unknown.header("access-control-allow-origin")),
        (StatusCode::UNAUTHORIZED, Some("https://evil.example")),
        "a script must be able to read the error"
    );
    for reply in [own, foreign, unknown] {
        assert_eq!(reply.header("vary"), Some("origin"));
    }
}

#[tokio::test]
async fn the_free_tier_is_for_dashboards_where_the_operator_lists_any() {
    let house = House::with(HttpSettings {
        dashboard_hosts: vec!["*.dash.example".to_owned()],
        ..HttpSettings::default()
    })
    .await;
    let paid = Client {
        tier: Tier::Paid,
        ..client("paid")
    };
    let paid = house.clients.put(&paid).await.unwrap();
    let by = |name: &str, page: &str| json!({"message": "hi", "sessionId": SESSION, "metadata": {name: page}});
    let by_page = |page| by("pageUrl", page);
    let cases = [
        (
            vec![("origin", "https://app.dash.example")],
            chat_body("hi"),
            StatusCode::OK,
        ),
        (
            vec![("referer", "https://app.dash.example/x")],
            chat_body("hi"),
            StatusCode::OK,
        ),
        (
            vec![("origin", "https://shop.example")],
            chat_body("hi"),
            StatusCode::FORBIDDEN,
        ),
        (
            vec![("origin", "https://shop.example")],
            by_page("https://app.dash.example/"),
            StatusCode::FORBIDDEN,
        ),
        (vec![], chat_body("hi"), StatusCode::FORBIDDEN),
        (vec![], by_page("https://app.dash.example/page"), StatusCode::OK),
        (vec![], by("page_url", "https://app.dash.example/page"), StatusCode::OK),
        (vec![], by_page("https://evildash.example/page"), StatusCode::FORBIDDEN),
    ];
    for (mut headers, body, expected) in cases {
        headers.push(("x-api-key", &house.key));
        let reply = house.send(post("/chat", &headers, &body)).await;

        assert_eq!(reply.status, expected, "{headers:?} {body}");
        if expected == StatusCode::FORBIDDEN {
            assert_eq!(
                (reply.code().as_str(), reply.reason().as_str()),
                ("INVALID_API_KEY", "DEPLOYMENT_NOT_ALLOWED")
            );
        }
    }
    let shop = [("x-api-key", paid.as_str()), ("origin", "https://shop.example")];
    let paid = house.send(post("/chat", &shop, &chat_body("hi"))).await;
    assert_eq!(paid.status, StatusCode::OK, "who pays chooses the pages");
    let mut body = chat_body("hi");
    body["clientId"] = "acme".into();
    let trusted = house.internal(Method::POST, "/chat", body).await;
    assert_eq!(
        trusted.status,
        StatusCode::OK,
        "the internal service has checked the page itself"
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
    for (method, path) in [
        (Method::GET, "/chat"),
        (Method::GET, "/api/widget/chat"),
        (Method::PUT, "/health"),
        (Method::POST, "/openapi.json"),
        (Method::POST, "/api/widget/docs"),
    ] {
        let reply = house.internal(method, path, Value::Null).await;
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
