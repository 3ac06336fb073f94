//! Documents and their payloads.

use stepgraph_nodes::service::{Document, DocumentId, DocumentStatus, Documents, FileType, ServiceError, Staged};
use uuid::Uuid;

use super::{at, rows, store, tenant};

#[tokio::test]
async fn another_tenants_progress_and_payloads_are_refused() {
    let store = store().await;
    let id = DocumentId::new("manual");
    let of_a = store
        .records
        .accept(&tenant("a"), &id, "m.txt", FileType::Txt, b"text")
        .await
        .unwrap();

    let error = store.records.progress(&tenant("b"), &of_a).await.unwrap_err();
    assert!(matches!(error, ServiceError::Mismatch { .. }));
    let error = store
        .records
        .stage(&tenant("b"), &id, 1, Staged::Text, b"x")
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Mismatch { .. }));
}

#[tokio::test]
async fn the_same_file_again_joins_and_another_counts_the_version_up() {
    let store = store().await;
    let (a, id) = (tenant("a"), DocumentId::new("manual"));
    let first = store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"one")
        .await
        .unwrap();
    let running = Document {
        status: DocumentStatus::Embedding,
        progress: 60,
        chunks_total: Some(4),
        ..first.clone()
    };
    store.records.progress(&a, &running).await.unwrap();

    let joined = store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"one")
        .await
        .unwrap();
    let changed = store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"two")
        .await
        .unwrap();

    assert_eq!(
        (first.version, first.status, first.progress),
        (1, DocumentStatus::Pending, 0)
    );
    assert_eq!(
        (joined.version, joined.status, joined.progress),
        (1, DocumentStatus::Embedding, 60)
    );
    assert_eq!(
        (changed.version, changed.status, changed.progress, changed.chunks_total),
        (2, DocumentStatus::Pending, 0, None)
    );
    assert_eq!(changed.created_at, first.created_at);
    assert_eq!(
        store.records.staged(&a, &id, 2, Staged::File).await.unwrap().as_deref(),
        Some(&b"two"[..])
    );
}

#[tokio::test]
async fn a_failed_file_sent_again_starts_anew_under_its_version() {
    let store = store().await;
    let (a, id) = (tenant("a"), DocumentId::new("manual"));
    let first = store
        .records
        .accept(&a, &id, "m.pdf", FileType::Pdf, b"one")
        .await
        .unwrap();
    let failed = Document {
        status: DocumentStatus::Failed,
        error_code: Some("pdf_encrypted".to_owned()),
        error_message: Some("the file has a password".to_owned()),
        ..first
    };
    store.records.progress(&a, &failed).await.unwrap();
    store.records.unstage(&a, &id, 1).await.unwrap();
    assert_eq!(store.records.count(&a).await.unwrap(), 0);

    let again = store
        .records
        .accept(&a, &id, "m.pdf", FileType::Pdf, b"one")
        .await
        .unwrap();

    assert_eq!(
        (again.version, again.status, again.error_code),
        (1, DocumentStatus::Pending, None)
    );
    assert!(store.records.staged(&a, &id, 1, Staged::File).await.unwrap().is_some());
    assert_eq!(store.records.count(&a).await.unwrap(), 1);
}

#[tokio::test]
async fn a_worker_of_an_older_version_or_of_a_deleted_document_writes_nothing() {
    let store = store().await;
    let (a, id) = (tenant("a"), DocumentId::new("manual"));
    let old = store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"one")
        .await
        .unwrap();
    store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"two")
        .await
        .unwrap();
    let late = Document {
        status: DocumentStatus::Completed,
        ..old.clone()
    };

    assert!(matches!(
        store.records.progress(&a, &late).await.unwrap_err(),
        ServiceError::Mismatch { .. }
    ));
    store.records.delete(&a, &id).await.unwrap();
    assert!(matches!(
        store.records.stage(&a, &id, 2, Staged::Text, b"t").await.unwrap_err(),
        ServiceError::Mismatch { .. }
    ));

    let anew = store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"one")
        .await
        .unwrap();
    assert_eq!(anew.version, 3, "a version is never used twice");
    assert!(matches!(
        store.records.progress(&a, &late).await.unwrap_err(),
        ServiceError::Mismatch { .. }
    ));
}

#[tokio::test]
async fn all_that_progress_reports_is_kept() {
    let store = store().await;
    let (a, id) = (tenant("a"), DocumentId::new("manual"));
    let accepted = store
        .records
        .accept(&a, &id, "My manual.csv", FileType::Csv, b"a;b")
        .await
        .unwrap();
    let done = Document {
        status: DocumentStatus::Completed,
        progress: 100,
        chunks_total: Some(2),
        chunks_processed: Some(2),
        point_ids: vec![Uuid::from_u128(1), Uuid::from_u128(2)],
        ..accepted
    };

    store.records.progress(&a, &done).await.unwrap();

    let read = Documents::get(&store.records, &a, &id).await.unwrap().unwrap();
    assert!(read.updated_at >= done.updated_at);
    assert_eq!(
        read,
        Document {
            updated_at: read.updated_at,
            ..done
        }
    );
}

#[tokio::test]
async fn payloads_are_replaced_and_dropped_up_to_a_version() {
    let store = store().await;
    let (a, id) = (tenant("a"), DocumentId::new("manual"));
    store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"one")
        .await
        .unwrap();
    store.records.stage(&a, &id, 1, Staged::Text, b"draft").await.unwrap();
    store.records.stage(&a, &id, 1, Staged::Text, b"text").await.unwrap();
    store
        .records
        .accept(&a, &id, "m.txt", FileType::Txt, b"two")
        .await
        .unwrap();

    assert_eq!(
        store.records.staged(&a, &id, 1, Staged::Text).await.unwrap().as_deref(),
        Some(&b"text"[..])
    );
    assert_eq!(store.records.staged(&a, &id, 1, Staged::Chunks).await.unwrap(), None);
    store.records.unstage(&a, &id, 1).await.unwrap();
    assert_eq!(store.records.staged(&a, &id, 1, Staged::Text).await.unwrap(), None);
    assert!(store.records.staged(&a, &id, 2, Staged::File).await.unwrap().is_some());

    store.records.delete(&a, &id).await.unwrap();
    assert_eq!(rows(&store.pool, "document_staging").await, 0);
}

#[tokio::test]
async fn a_list_is_walked_page_by_page_newest_first_and_misses_none() {
    let store = store().await;
    let records = store.records.clone().with_clock(|| at("2026-11-22T10:00:00Z"));
    for document in 0..5 {
        let id = DocumentId::new(format!("doc~{document}"));
        records
            .accept(&tenant("a"), &id, "d.txt", FileType::Txt, b"same moment")
            .await
            .unwrap();
    }
    let later = store.records.clone().with_clock(|| at("2026-11-22T11:00:00Z"));
    later
        .accept(
            &tenant("a"),
            &DocumentId::new("newest"),
            "d.txt",
            FileType::Txt,
            b"later",
        )
        .await
        .unwrap();

    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = records.list(&tenant("a"), 2, cursor.as_deref()).await.unwrap();
        seen.extend(
            page.documents
                .into_iter()
                .map(|document| document.id.as_str().to_owned()),
        );
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }

    assert_eq!(seen, ["newest", "doc~4", "doc~3", "doc~2", "doc~1", "doc~0"]);
    assert!(matches!(
        records.list(&tenant("a"), 0, None).await.unwrap_err(),
        ServiceError::Refused { .. }
    ));
    assert!(matches!(
        records.list(&tenant("a"), 2, Some("junk~x")).await.unwrap_err(),
        ServiceError::Refused { .. }
    ));
}
