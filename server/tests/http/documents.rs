//! Documents: taken in, asked after, listed, deleted; and never another tenant's.

use std::{sync::atomic::Ordering, time::Duration};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::{
    service::{Client, Clients, DocumentId, DocumentStatus, FileType, Tier},
    trace,
};
use stepgraph_server::{HttpSettings, Limits};

use crate::{
    fakes::FakeChat,
    house::{House, client, upload_body},
};

async fn working(settings: HttpSettings) -> House {
    let house = House::with(settings).await;
    house.server.start_workers();
    house
}

fn acme() -> TenantId {
    TenantId::authenticated("acme").unwrap()
}

#[tokio::test]
async fn a_document_is_processed_while_the_caller_waits() {
    let house = working(HttpSettings::default()).await;

    let reply = house.upload("d1", "some words").await;

    let body = reply.json();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        (&body["success"], &body["documentId"], &body["chunksCreated"]),
        (&json!(true), &json!("d1"), &json!(3))
    );
    assert_eq!(body["qdrantPointIds"].as_array().unwrap().len(), 3);
    assert!(body["processingTimeMs"].is_u64() && body["errorMessage"].is_null());
    let status = house.get("/api/widget/documents/d1/status").await.json();
    assert_eq!(
        (&status["status"], &status["progress"], &status["chunksTotal"]),
        (&json!("completed"), &json!(100), &json!(3))
    );
    assert_eq!(status["qdrantPointIds"], body["qdrantPointIds"]);
}

#[tokio::test]
async fn the_same_file_again_is_not_processed_again_but_another_one_replaces_it() {
    let house = working(HttpSettings::default()).await;
    let first = house.upload("d1", "some words").await.json();

    let again = house.upload("d1", "some words").await.json();
    assert_eq!(
        (&again["qdrantPointIds"], house.ingest.tries.load(Ordering::SeqCst)),
        (&first["qdrantPointIds"], 1)
    );

    house.upload("d1", "other words").await;
    assert_eq!(house.ingest.tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_wrong_with_an_upload_is_told() {
    let house = House::new().await;
    let with = |member: &str, value: Value| {
        let mut body = upload_body("acme", "d1", "some words");
        body[member] = value;
        body
    };
    let eleven_mib = "A".repeat(11 * 1024 * 1024 / 3 * 4);
    let cases = [
        (with("fileType", json!("exe")), "unsupported_type"),
        (with("fileData", json!("***")), "invalid_base64"),
        (with("fileData", json!("")), "empty_file"),
        (with("fileData", json!(eleven_mib)), "file_too_large"),
        (with("fileData", json!("A".repeat(17 * 1024 * 1024))), "body_too_large"),
        (with("documentId", json!("")), "document_id"),
        (with("documentId", json!("x".repeat(300))), "document_id"),
        (with("originalName", json!("a\u{0}b")), "original_name"),
        (with("clientId", json!("nobody")), "unknown_client"),
        (json!({"clientId": "acme"}), "body"),
    ];
    for (body, reason) in cases {
        let reply = house.internal(Method::POST, "/process-document", body).await;

        assert_eq!(
            (reply.status, reply.code().as_str()),
            (StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
            "{reason}"
        );
        assert_eq!(reply.reason(), reason);
    }
    assert_eq!(house.documents.count(&acme()).await.unwrap(), 0);
}

#[tokio::test]
async fn ten_mib_pass_in_either_spelling_of_the_members_and_with_or_without_padding() {
    let house = House::with(HttpSettings {
        document_wait: Duration::ZERO,
        ..HttpSettings::default()
    })
    .await;
    let body = json!({
        "document_id": "big", "client_id": "acme", "file_type": "TXT", "original_name": "big.txt",
        "file_data": "QUJD".repeat(10 * 1024 * 1024 / 3) + "QQ",
    });

    let reply = house.internal(Method::POST, "/process-document", body).await;

    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let stored = house
        .documents
        .list(&acme(), 1, None)
        .await
        .unwrap()
        .documents
        .remove(0);
    assert_eq!(stored.file_size, 10 * 1024 * 1024);
}

#[tokio::test]
async fn the_tier_limits_the_documents_but_not_their_replacement() {
    let limits = Limits {
        free_documents: 2,
        paid_documents: 3,
        ..Limits::default()
    };
    let house = working(HttpSettings {
        limits,
        ..HttpSettings::default()
    })
    .await;
    house
        .clients
        .put(&Client {
            tier: Tier::Paid,
            ..client("paid")
        })
        .await
        .unwrap();
    for id in ["d1", "bad"] {
        house.upload(id, if id == "bad" { "refuse" } else { "words" }).await;
    }

    assert_eq!(
        house.upload("d2", "words").await.status,
        StatusCode::OK,
        "a failed document takes no place"
    );
    let refused = house.upload("d3", "words").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::PAYMENT_REQUIRED, "QUOTA_EXCEEDED")
    );
    assert_eq!(refused.reason(), "DOCUMENT_LIMIT");
    assert_eq!(house.upload("d2", "new words").await.status, StatusCode::OK);
    for id in ["d1", "d2", "d3"] {
        let reply = house
            .internal(Method::POST, "/process-document", upload_body("paid", id, "words"))
            .await;
        assert_eq!(reply.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_file_that_is_no_good_fails_with_code_and_words_and_can_be_sent_again() {
    let house = working(HttpSettings::default()).await;

    let reply = house.upload("d1", "refuse").await;

    assert_eq!(
        reply.status,
        StatusCode::OK,
        "a 5xx would make the client send it again"
    );
    let body = reply.json();
    assert_eq!((&body["success"], &body["chunksCreated"]), (&json!(false), &json!(0)));
    assert_eq!(
        (&body["errorCode"], &body["errorMessage"]),
        (&json!("parse::refused"), &json!("the file is no good"))
    );
    let status = house.get("/documents/d1/status").await.json();
    assert_eq!(
        (&status["status"], &status["errorMessage"]),
        (&json!("failed"), &json!("the file is no good"))
    );
    house.upload("d1", "refuse").await;
    assert_eq!(house.ingest.tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let house = working(HttpSettings::default()).await;

    let reply = house.upload("d1", "flaky").await;

    assert_eq!(
        (&reply.json()["success"], house.ingest.tries.load(Ordering::SeqCst)),
        (&json!(true), 2)
    );
}

#[tokio::test]
async fn a_long_ingestion_goes_on_after_the_answer() {
    let house = working(HttpSettings {
        document_wait: Duration::ZERO,
        ..HttpSettings::default()
    })
    .await;

    let body = house.upload("d1", "gate").await.json();
    assert_eq!(
        (&body["success"], &body["chunksCreated"], &body["qdrantPointIds"]),
        (&json!(true), &json!(0), &json!([]))
    );
    let status = house.get("/documents/d1/status").await.json();
    assert_eq!(
        (&status["status"], &status["currentStep"]),
        (&json!("pending"), &json!("Waiting"))
    );

    FakeChat::reaches(&house.ingest.begun, 1).await;
    house.ingest.gate.add_permits(1);
    house.server.drain().await;
    assert_eq!(house.get("/documents/d1/status").await.json()["status"], "completed");
}

#[tokio::test]
async fn a_document_without_a_job_gets_one_at_the_start() {
    let house = House::new().await;
    let id = stepgraph_nodes::service::DocumentId::new("d1");
    let accepted = house
        .documents
        .accept(&acme(), &id, "d1.txt", FileType::Txt, b"words")
        .await;
    assert_eq!(accepted.unwrap().status, DocumentStatus::Pending);

    house.server.start_workers();
    FakeChat::reaches(&house.ingest.begun, 1).await;
    house.server.drain().await;

    assert_eq!(house.get("/documents/d1/status").await.json()["status"], "completed");
}

#[tokio::test]
async fn documents_are_listed_page_by_page() {
    let house = working(HttpSettings::default()).await;
    for id in ["d1", "d2", "d3"] {
        house.upload(id, "words").await;
    }

    let first = house.get("/documents?clientId=acme&limit=2").await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = house
        .get(&format!("/documents?client_id=acme&limit=2&cursor={cursor}"))
        .await
        .json();

    assert_eq!(second["documents"].as_array().unwrap().len(), 1);
    assert!(second["nextCursor"].is_null());
    let row = &first["documents"][0];
    assert_eq!(
        (&row["documentId"], &row["originalName"], &row["fileType"]),
        (&json!("d3"), &json!("d3.txt"), &json!("txt"))
    );
    assert_eq!(
        (&row["status"], &row["progress"], &row["chunksTotal"]),
        (&json!("completed"), &json!(100), &json!(3))
    );
    assert!(row["createdAt"].as_str().unwrap().ends_with('Z'));
    for (query, reason) in [
        ("", "client_id"),
        ("?clientId=acme&limit=0", "limit"),
        ("?clientId=acme&limit=x", "query"),
        ("?clientId=acme&cursor=x", "cursor"),
    ] {
        let reply = house.get(&format!("/documents{query}")).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::BAD_REQUEST, reason)
        );
    }
}

#[tokio::test]
async fn a_deleted_document_is_gone_with_its_points() {
    let house = working(HttpSettings::default()).await;
    house.upload("d1", "words").await;

    let reply = house
        .internal(Method::DELETE, "/documents/d1?clientId=acme", Value::Null)
        .await;

    assert_eq!(reply.json(), json!({"success": true, "pointsDeleted": 3}));
    assert_eq!(house.vectors.count(&acme()).await.unwrap(), 0);
    assert_eq!(house.get("/documents/d1/status").await.status, StatusCode::NOT_FOUND);
    let again = house
        .internal(Method::DELETE, "/documents/d1?clientId=acme", Value::Null)
        .await;
    assert_eq!(
        (again.status, again.code().as_str()),
        (StatusCode::NOT_FOUND, "INVALID_REQUEST")
    );
}

#[tokio::test]
async fn a_document_deleted_in_the_middle_of_its_ingestion_stays_deleted() {
    let house = working(HttpSettings {
        document_wait: Duration::ZERO,
        ..HttpSettings::default()
    })
    .await;
    house.upload("d1", "gate").await;
    FakeChat::reaches(&house.ingest.begun, 1).await;

    let reply = house
        .internal(Method::DELETE, "/documents/d1?clientId=acme", Value::Null)
        .await;

    assert_eq!(reply.status, StatusCode::OK);
    house.server.drain().await;
    assert_eq!(house.vectors.count(&acme()).await.unwrap(), 0);
    assert_eq!(house.ingest.tries.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_document_whose_job_was_never_queued_is_processed_at_the_next_start_under_its_trace() {
    let house = House::new().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok();
    // As a process does that ends between the record and its job.
    let (tenant, id) = (acme(), DocumentId::new("d1"));
    let accepted = house
        .ingest
        .documents
        .accept(&tenant, &id, "d1.txt", FileType::Txt, b"some words");
    trace::within(trace, accepted).await.unwrap();

    house.server.start_workers();
    FakeChat::reaches(&house.ingest.begun, 1).await;
    house.server.drain().await;

    assert_eq!(
        house.get("/documents/d1/status").await.json()["status"],
        json!("completed")
    );
    assert_eq!(*house.ingest.traces.lock().unwrap(), [trace]);
}

#[tokio::test]
async fn an_id_that_two_tenants_use_needs_the_tenant() {
    let house = working(HttpSettings::default()).await;
    house.clients.put(&client("other")).await.unwrap();
    house.upload("d1", "words").await;
    assert_eq!(house.get("/documents/d1/status").await.status, StatusCode::OK);

    house
        .internal(Method::POST, "/process-document", upload_body("other", "d1", "refuse"))
        .await;

    let ambiguous = house.get("/documents/d1/status").await;
    assert_eq!(
        (ambiguous.status, ambiguous.reason().as_str()),
        (StatusCode::BAD_REQUEST, "ambiguous_document")
    );
    assert_eq!(
        house.get("/documents/d1/status?clientId=acme").await.json()["status"],
        "completed"
    );
    assert_eq!(
        house.get("/documents/d1/status?clientId=other").await.json()["status"],
        "failed"
    );
}

#[tokio::test]
async fn no_tenant_reaches_the_documents_of_another() {
    let house = working(HttpSettings::default()).await;
    house.clients.put(&client("other")).await.unwrap();
    house.upload("d1", "words").await;

    let status = house.get("/documents/d1/status?clientId=other").await;
    let list = house.get("/documents?clientId=other").await;
    let delete = house
        .internal(Method::DELETE, "/documents/d1?clientId=other", Value::Null)
        .await;

    assert_eq!(
        (status.status, delete.status),
        (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND)
    );
    assert_eq!(list.json()["documents"], json!([]));
    assert_eq!(house.vectors.count(&acme()).await.unwrap(), 3);
}
