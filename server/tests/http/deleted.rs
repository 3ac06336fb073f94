//! A deleted document is gone from answers at once: from those that are begun before it is deleted and end after it, too.

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    house::{self, SECRET, chat_body},
    provider::{Provider, REFUSED_ONCE},
    whole::{self, Whole},
};

/// The second answer to a message that got none at first, with what was done between the two.
async fn answered_at_the_second_time(headers: &[(&str, &str)], change: Option<&Value>) -> Value {
    let (provider, folder) = (Provider::start().await, TempDir::new().unwrap());
    let settings = whole::settings(folder.path(), &provider.environment());
    let whole = Whole::on(whole::installation(&settings).await, &settings).await;
    let key = whole.records().clients.put(&house::client("acme")).await.unwrap();
    let secret = [("x-internal-secret", SECRET)];
    for (id, text) in [
        ("kettle", "The kettle is repaired within two days."),
        ("other", "The repaired kettle is sent back free of charge."),
    ] {
        let upload = house::post("/process-document", &secret, &house::upload_body("acme", id, text));
        let (status, told) = whole.send(upload).await;
        assert!(status == 200 && told.contains("\"success\":true"), "{told}");
    }
    let headers = [headers, &[("x-api-key", key.as_str())]].concat();
    let body = chat_body(&format!("is the kettle repaired, {REFUSED_ONCE}?"));
    let ask = async || {
        let (status, told) = whole.send(house::post("/chat", &headers, &body)).await;
        (status, serde_json::from_str::<Value>(&told).unwrap())
    };

    let (status, first) = ask().await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{first}");
    match change {
        None => {}
        Some(Value::Null) => {
            let path = "/documents/kettle?clientId=acme";
            let request = house::request(Method::DELETE, path, &secret, String::new());
            assert_eq!(whole.send(request).await.0, StatusCode::OK);
        }
        Some(upload) => {
            let (status, told) = whole.send(house::post("/process-document", &secret, upload)).await;
            assert_eq!(status, StatusCode::OK, "{told}");
        }
    }
    let (status, second) = ask().await;
    assert_eq!(status, StatusCode::OK, "{second}");
    assert_eq!(second["traceId"], first["traceId"], "it goes on with its run");
    whole.server.drain().await;
    second
}

#[tokio::test]
async fn a_run_that_goes_on_says_nothing_of_a_document_that_was_deleted_meanwhile() {
    let named = [("idempotency-key", "order-7")];
    let replaced = house::upload_body("acme", "kettle", "The kettle is repaired while you wait.");
    for headers in [&[][..], &named] {
        for (change, said) in [
            (None, Some("within two days")),
            (Some(&Value::Null), None),
            (Some(&replaced), None),
        ] {
            let told = answered_at_the_second_time(headers, change).await;

            let text = told["response"].as_str().unwrap();
            assert_eq!(text.contains("within two days"), said.is_some(), "{told}");
            assert!(text.contains("free of charge"), "what is still there is said: {told}");
            let sources = told["sources"].as_array().unwrap();
            let is_source = sources.iter().any(|source| source["documentId"] == "kettle");
            assert_eq!(is_source, said.is_some(), "{told}");
        }
    }
}
