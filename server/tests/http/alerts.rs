//! The owner of a tenant is told when it comes near its limit.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use serde_json::Value;
use stepgraph::TenantId;
use stepgraph_nodes::service::{Alerts, Client, Clients, Delivery};
use stepgraph_server::{HttpSettings, Limits};

use crate::house::House;

type Heard = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// A receiver that fails once; says where it is.
async fn receiver(heard: &Heard) -> (String, tokio::task::AbortHandle) {
    let hook = async |State(heard): State<Heard>, headers: HeaderMap, Json(alert): Json<Value>| {
        let mut heard = heard.lock().unwrap();
        heard.push((headers, alert));
        if heard.len() == 1 {
            axum::http::StatusCode::BAD_GATEWAY
        } else {
            axum::http::StatusCode::NO_CONTENT
        }
    };
    let app = Router::new().route("/hook", post(hook)).with_state(Arc::clone(heard));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listening = tokio::spawn(async move { axum::serve(listener, app).await });
    (address, listening.abort_handle())
}

#[tokio::test]
async fn a_webhook_hears_of_four_fifths_and_of_the_whole_limit_once_each_and_no_secret() {
    let heard = Heard::default();
    let (address, listening) = receiver(&heard).await;
    let house = House::with(HttpSettings {
        callback_hosts: vec![address.clone()],
        limits: Limits {
            free_messages: 5,
            ..Limits::default()
        },
        upgrade_url: Some("https://app.example/upgrade".to_owned()),
        ..HttpSettings::default()
    })
    .await;
    let tenant = TenantId::authenticated("acme").unwrap();
    let mut client = Client::new(tenant.clone());
    client.settings.alert_webhook = Some(format!("http://{address}/hook"));
    house.clients.put(&client).await.unwrap();

    for number in 1..=5 {
        assert_eq!(house.say(&format!("message {number}")).await.status, 200);
    }
    let refused = house.say("one more").await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason().as_str()),
        (429, "RATE_LIMIT_EXCEEDED")
    );
    assert_eq!(
        refused.json()["error"]["details"]["upgradeUrl"],
        "https://app.example/upgrade"
    );
    house.server.start_workers();
    let sent = async || {
        let alerts = house.clients.alerts(&tenant, 9).await.unwrap();
        alerts
            .iter()
            .filter(|(_, delivery)| *delivery == Delivery::Sent)
            .count()
    };
    while sent().await < 2 {
        tokio::task::yield_now().await;
    }
    house.server.drain().await;
    listening.abort();

    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 3, "two alerts, the first of them twice");
    for (level, percent, count) in [("threshold", 80, 4), ("limit", 100, 5)] {
        let (headers, alert) = heard.iter().rfind(|(_, alert)| alert["level"] == level).unwrap();
        assert_eq!(
            (&alert["type"], &alert["clientId"]),
            (&"usage.alert".into(), &"acme".into())
        );
        assert_eq!(
            (&alert["percent"], &alert["count"], &alert["limit"]),
            (&percent.into(), &count.into(), &5.into())
        );
        let window = chrono::DateTime::parse_from_rfc3339(alert["windowStart"].as_str().unwrap()).unwrap();
        let resets = chrono::DateTime::parse_from_rfc3339(alert["resetsAt"].as_str().unwrap()).unwrap();
        assert_eq!((resets - window).num_seconds(), 3_600);
        let id = format!("acme:{}:{level}", window.timestamp());
        assert_eq!(
            (&alert["id"], headers["idempotency-key"].to_str().unwrap()),
            (&id.as_str().into(), id.as_str())
        );
        assert!(
            !headers.contains_key("x-internal-secret"),
            "a tenant's own address must not learn it"
        );
    }
}
