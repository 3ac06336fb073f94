//! Facts of documents, of threads, and of all rows of a tenant.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::{
    service::{
        Alert, AlertLevel, ChatTurn, Claim, Delivery, Document, DocumentId, DocumentStatus, FileType, NamedRequest,
        NamedState, Rating, Records, RequestName, ServiceError, Staged, ThreadChange, Unfinished,
    },
    trace,
};
use uuid::Uuid;

use super::{every_setting, made, turn};

/// Longer than any test.
const LONG: Duration = Duration::from_hours(1);

async fn accepted(records: &Records, tenant: &TenantId, id: &str, bytes: &[u8]) -> Document {
    let id = DocumentId::new(id);
    let accepted = records
        .documents
        .accept(tenant, &id, "m.txt", FileType::Txt, bytes)
        .await;
    accepted.unwrap()
}

pub(crate) async fn a_document_goes_its_way_from_accepted_to_completed(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let documents = &records.documents;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok();
    let first = trace::within(trace, accepted(&records, &a, "m", b"of a")).await;
    accepted(&records, &b, "m", b"of b, longer").await;

    assert_eq!(
        (first.status, first.version, first.file_size),
        (DocumentStatus::Pending, 1, 4)
    );
    assert_eq!(documents.owners(&first.id).await.unwrap(), [a.clone(), b.clone()]);
    let left = |tenant: &TenantId, trace| Unfinished {
        tenant: tenant.clone(),
        document: first.id.clone(),
        version: 1,
        trace,
    };
    let unfinished = documents.unfinished(10).await.unwrap();
    assert!(
        unfinished.len() == 2 && unfinished.contains(&left(&a, trace)) && unfinished.contains(&left(&b, None)),
        "{unfinished:?}"
    );
    let staged = async |tenant: &TenantId, what| documents.staged(tenant, &first.id, 1, what).await.unwrap();
    assert_eq!(staged(&a, Staged::File).await.as_deref(), Some(b"of a".as_slice()));
    documents.stage(&a, &first.id, 1, Staged::Text, b"text").await.unwrap();
    assert_eq!(staged(&b, Staged::Text).await, None);
    let done = Document {
        status: DocumentStatus::Completed,
        progress: 100,
        chunks_total: Some(2),
        chunks_processed: Some(2),
        point_ids: vec![Uuid::from_u128(1), Uuid::from_u128(2)],
        ..first.clone()
    };
    documents.progress(&a, &done).await.unwrap();
    documents.unstage(&a, &first.id, 1).await.unwrap();

    let read = documents.get(&a, &first.id).await.unwrap().unwrap();
    assert_eq!(
        Document {
            updated_at: done.updated_at,
            ..read
        },
        done
    );
    assert_eq!(staged(&a, Staged::File).await, None);
    assert!(staged(&b, Staged::File).await.is_some());
    let of_b = documents.get(&b, &first.id).await.unwrap().unwrap();
    assert_eq!(of_b.status, DocumentStatus::Pending);
    assert!(documents.delete(&a, &first.id).await.unwrap());
    assert!(!documents.delete(&a, &first.id).await.unwrap());
    assert_eq!(
        (documents.count(&a).await.unwrap(), documents.count(&b).await.unwrap()),
        (0, 1)
    );
    documents.ping().await.unwrap();
}

pub(crate) async fn a_document_of_an_older_version_is_left_alone(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let documents = &records.documents;
    let first = accepted(&records, &a, "m", b"one").await;
    let second = accepted(&records, &a, "m", b"two").await;
    assert_eq!(second.version, 2);

    for refused in [
        documents.progress(&a, &first).await,
        documents.progress(&b, &second).await,
        documents.stage(&a, &first.id, 1, Staged::Text, b"x").await,
        documents.stage(&b, &first.id, 2, Staged::Text, b"x").await,
    ] {
        assert!(matches!(refused, Err(ServiceError::Mismatch { .. })), "{refused:?}");
    }
    documents.delete(&a, &first.id).await.unwrap();
    assert_eq!(accepted(&records, &a, "m", b"two").await.version, 3, "no version twice");
}

pub(crate) async fn a_file_again_joins_and_a_failed_one_starts_anew(records: Records) {
    let a = made(&records, "a").await;
    let documents = &records.documents;
    let first = accepted(&records, &a, "m", b"one").await;
    let running = Document {
        status: DocumentStatus::Embedding,
        progress: 60,
        ..first
    };
    documents.progress(&a, &running).await.unwrap();
    let joined = accepted(&records, &a, "m", b"one").await;
    assert_eq!((joined.version, joined.status), (1, DocumentStatus::Embedding));
    let failed = Document {
        status: DocumentStatus::Failed,
        error_code: Some("parse::encrypted".to_owned()),
        error_message: Some("it is encrypted".to_owned()),
        ..running
    };
    documents.progress(&a, &failed).await.unwrap();
    assert_eq!(documents.count(&a).await.unwrap(), 0, "a failed one counts for nothing");
    let read = documents.get(&a, &failed.id).await.unwrap().unwrap();
    assert_eq!(read.error_code.as_deref(), Some("parse::encrypted"));

    let anew = accepted(&records, &a, "m", b"one").await;

    assert_eq!(
        (anew.version, anew.status, anew.error_code),
        (1, DocumentStatus::Pending, None)
    );
}

pub(crate) async fn documents_come_in_pages(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    for number in 0..5 {
        accepted(&records, &a, &format!("d{number}"), b"x").await;
    }
    accepted(&records, &b, "other", b"x").await;
    let (mut seen, mut cursor) = (Vec::new(), None);
    for _ in 0..3 {
        let page = records.documents.list(&a, 2, cursor.as_deref()).await.unwrap();
        seen.extend(
            page.documents
                .into_iter()
                .map(|document| document.id.as_str().to_owned()),
        );
        cursor = page.next_cursor;
    }

    assert_eq!(seen, ["d4", "d3", "d2", "d1", "d0"]);
    assert_eq!(cursor, None);
    for (limit, cursor) in [(0, None), (100_000, None), (2, Some("nonsense"))] {
        let refused = records.documents.list(&a, limit, cursor).await;
        assert!(matches!(refused, Err(ServiceError::Refused { .. })), "{refused:?}");
    }
}

pub(crate) async fn a_thread_is_made_once_and_changed(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let (threads, id) = (&records.threads, Uuid::from_u128(7));
    let change = |graph: Option<&str>, key: &str| ThreadChange {
        graph: graph.map(str::to_owned),
        metadata: [(key.to_owned(), json!(1))].into_iter().collect(),
    };

    let first = threads.create(&a, id, &change(None, "one")).await.unwrap().unwrap();
    assert_eq!(threads.create(&a, id, &change(None, "again")).await.unwrap(), None);
    assert_eq!(threads.get(&a, id).await.unwrap(), Some(first));
    let changed = threads
        .change(&a, id, &change(Some("chat"), "two"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(changed.graph.as_deref(), Some("chat"));
    let kept = threads
        .change(&a, id, &change(Some("other"), "three"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.graph.as_deref(), Some("chat"));
    let keys: BTreeSet<_> = kept.metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, ["one", "three", "two"].into());
    assert_eq!(threads.get(&b, id).await.unwrap(), None);
    assert_eq!(threads.change(&b, id, &change(None, "x")).await.unwrap(), None);
}

fn named(name: &str) -> RequestName {
    RequestName {
        session: "s".to_owned(),
        name: name.to_owned(),
    }
}

fn known(claim: Claim) -> NamedRequest {
    match claim {
        Claim::Known(found) => found,
        Claim::Ours => panic!("the name was free"),
    }
}

pub(crate) async fn a_name_stands_for_one_request_of_one_session_of_a_tenant(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let (names, run) = (&records.named, RunId::random());
    let elsewhere = RequestName {
        session: "t".to_owned(),
        ..named("n")
    };

    assert_eq!(names.claim(&a, &named("n"), run).await.unwrap(), Claim::Ours);
    for (tenant, name) in [(&b, named("n")), (&a, elsewhere), (&a, named("m"))] {
        assert_eq!(names.claim(tenant, &name, RunId::random()).await.unwrap(), Claim::Ours);
    }
    let found = known(names.claim(&a, &named("n"), RunId::random()).await.unwrap());
    assert_eq!(
        (found.run, &found.state, found.is_left),
        (run, &NamedState::Claimed, false)
    );

    names
        .note(&a, &named("n"), RunId::random(), &NamedState::Failed)
        .await
        .unwrap();
    names.note(&b, &named("n"), run, &NamedState::Failed).await.unwrap();
    names.note(&a, &named("n"), run, &NamedState::Begun).await.unwrap();
    let found = known(names.claim(&a, &named("n"), run).await.unwrap());
    assert_eq!(found.state, NamedState::Begun, "another run or tenant changes nothing");

    let answer = NamedState::Answered(json!({"text": "two years"}));
    names.note(&a, &named("n"), run, &answer).await.unwrap();
    names.note(&a, &named("n"), run, &NamedState::Failed).await.unwrap();
    names.release(&a, &named("n"), run).await.unwrap();
    let found = known(names.claim(&a, &named("n"), run).await.unwrap());
    assert_eq!(found.state, answer, "an answer stays");
    assert!(!names.take_over(&a, &named("n"), &found).await.unwrap());
}

pub(crate) async fn of_many_who_name_a_request_at_once_one_has_it(records: Records) {
    let a = made(&records, "a").await;
    let (name, runs) = (named("n"), [(); 16].map(|()| RunId::random()));
    let claims = runs.iter().map(|run| records.named.claim(&a, &name, *run));

    let claims = futures_util::future::try_join_all(claims).await.unwrap();

    let ours = claims.iter().filter(|claim| **claim == Claim::Ours).count();
    assert_eq!(ours, 1);
    let of: BTreeSet<_> = claims
        .into_iter()
        .filter(|claim| *claim != Claim::Ours)
        .map(|claim| known(claim).run)
        .collect();
    assert_eq!(of.len(), 1, "all others hear of the same run");

    let run = *of.first().unwrap();
    records.named.note(&a, &name, run, &NamedState::Failed).await.unwrap();
    let failed = known(records.named.claim(&a, &name, RunId::random()).await.unwrap());
    let takers = [(); 16].map(|()| records.named.take_over(&a, &name, &failed));
    let taken = futures_util::future::try_join_all(takers).await.unwrap();
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
    let found = known(records.named.claim(&a, &name, RunId::random()).await.unwrap());
    assert_eq!((found.run, found.state), (run, NamedState::Begun));

    records.named.release(&a, &name, run).await.unwrap();
    assert_eq!(records.named.claim(&a, &name, run).await.unwrap(), Claim::Ours);
}

/// Something in every table.
async fn filled(records: &Records, tenant: &TenantId) {
    records.clients.set(tenant, &every_setting()).await.unwrap();
    let run = RunId::random();
    let turn = ChatTurn {
        overage: true,
        ..turn(run, "s", "2026-11-22T10:00:00Z")
    };
    records.log.write(tenant, &turn).await.unwrap();
    records.feedbacks.rate(tenant, run, Rating::Up, None).await.unwrap();
    records.named.claim(tenant, &named("n"), run).await.unwrap();
    accepted(records, tenant, "m", b"file").await;
    records
        .threads
        .create(tenant, Uuid::from_u128(7), &ThreadChange::default())
        .await
        .unwrap();
    let alert = alert(AlertLevel::Limit, "2026-11-22T10:00:00Z", None);
    records.alerts.raise(tenant, &alert).await.unwrap();
}

async fn taken_out(records: &Records, tenant: &TenantId) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    for table in records.data.tables() {
        let mut after = None;
        loop {
            let page = records.data.export(tenant, table, after.as_deref(), 1).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.cursor.clone());
            rows.extend(page.iter().map(|row| (row.table, row.row.to_string())));
            assert!(rows.len() < 100, "the cursor does not go on: {rows:?}");
        }
    }
    rows
}

fn alert(level: AlertLevel, window_start: &str, webhook: Option<&str>) -> Alert {
    let window_start: DateTime<Utc> = window_start.parse().unwrap();
    Alert {
        level,
        percent: 80,
        count: 80,
        limit: 100,
        window_start,
        resets_at: window_start + TimeDelta::hours(1),
        webhook: webhook.map(str::to_owned),
    }
}

pub(crate) async fn an_alert_is_kept_once_and_given_to_one_sender_at_a_time(records: Records) {
    const HOOK: Option<&str> = Some("https://hooks.example/");
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let alerts = &records.alerts;
    let later = alert(AlertLevel::Threshold, "2026-03-01T11:00:00Z", HOOK);
    let first = alert(AlertLevel::Threshold, "2026-03-01T10:00:00Z", HOOK);
    let limit = alert(AlertLevel::Limit, "2026-03-01T10:00:00Z", HOOK);
    let quiet = alert(AlertLevel::Threshold, "2026-03-01T10:00:00Z", None);
    for (tenant, alert) in [(&a, &later), (&a, &first), (&a, &limit), (&b, &quiet)] {
        assert!(alerts.raise(tenant, alert).await.unwrap());
    }
    let again = Alert {
        count: 99,
        ..first.clone()
    };
    assert!(!alerts.raise(&a, &again).await.unwrap());

    let mine = alerts.claim(2, LONG).await.unwrap();
    let others = alerts.claim(9, LONG).await.unwrap();
    assert_eq!(alerts.claim(9, LONG).await.unwrap(), []);

    // Oldest first; within a window by their level.
    assert_eq!(
        (mine.len(), others.as_slice()),
        (2, [(a.clone(), later.clone())].as_slice())
    );
    assert!(
        mine.contains(&(a.clone(), first.clone())) && mine.contains(&(a.clone(), limit.clone())),
        "{mine:?}"
    );
    alerts.settle(&a, &first, Delivery::Sent).await.unwrap();
    alerts.settle(&a, &limit, Delivery::Failed).await.unwrap();
    let told = alerts.alerts(&a, 9).await.unwrap();
    let waiting = (later.clone(), Delivery::Waiting);
    assert_eq!(told[0], waiting);
    assert!(
        told.contains(&(first, Delivery::Sent)) && told.contains(&(limit, Delivery::Failed)),
        "{told:?}"
    );
    assert_eq!(alerts.alerts(&a, 1).await.unwrap(), [waiting]);
    assert_eq!(alerts.alerts(&b, 9).await.unwrap(), [(quiet, Delivery::Unwanted)]);
}

pub(crate) async fn an_alert_whose_sender_was_lost_is_given_to_another_and_old_ones_go(records: Records) {
    let a = made(&records, "a").await;
    let alerts = &records.alerts;
    let first = alert(
        AlertLevel::Limit,
        "2025-01-01T10:00:00Z",
        Some("https://hooks.example/"),
    );
    alerts.raise(&a, &first).await.unwrap();

    assert_eq!(
        alerts.claim(9, Duration::ZERO).await.unwrap(),
        [(a.clone(), first.clone())]
    );
    let again = async {
        loop {
            let claimed = alerts.claim(9, LONG).await.unwrap();
            if !claimed.is_empty() {
                return claimed;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(again.await, [(a.clone(), first)]);

    let after_years = alert(AlertLevel::Limit, "2027-01-01T10:00:00Z", None);
    alerts.raise(&a, &after_years).await.unwrap();
    assert_eq!(alerts.alerts(&a, 9).await.unwrap(), [(after_years, Delivery::Unwanted)]);
}

pub(crate) async fn what_is_taken_out_is_all_there_is(records: Records) {
    let (a, b) = (made(&records, "tenant-a").await, made(&records, "tenant-b").await);
    filled(&records, &a).await;
    filled(&records, &b).await;

    let rows = taken_out(&records, &a).await;

    let (counted, tables) = (records.data.rows(&a).await.unwrap(), records.data.tables());
    for table in &counted {
        let taken = rows.iter().filter(|(name, _)| *name == table.table).count();
        assert_eq!(taken as u64, table.rows, "{}", table.table);
        // A store beside the tables of another program leaves it to that one to fill these.
        let foreign = tables.contains(&"stepgraph_documents") && ["documents", "client_widgets"].contains(&table.table);
        assert!(taken > 0 || foreign, "{} is empty: fill it", table.table);
    }
    assert_eq!(counted.len(), records.data.tables().len());
    assert!(rows.iter().all(|(_, row)| !row.contains("tenant-b")), "{rows:?}");
    assert!(rows.iter().any(|(_, row)| row.contains("Two years.")));
    let unknown = records.data.export(&a, "sqlite_master", None, 1).await;
    assert!(matches!(unknown, Err(ServiceError::Refused { .. })), "{unknown:?}");
}

pub(crate) async fn an_erased_tenant_leaves_no_row_and_the_other_all(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    filled(&records, &a).await;
    filled(&records, &b).await;
    let before = (
        records.data.rows(&a).await.unwrap(),
        records.data.rows(&b).await.unwrap(),
    );

    let erased = records.data.erase(&a).await.unwrap();

    assert_eq!(erased, before.0);
    assert!(records.data.rows(&a).await.unwrap().iter().all(|table| table.rows == 0));
    assert_eq!(records.data.rows(&b).await.unwrap(), before.1);
    assert_eq!(records.clients.by_id("a").await.unwrap(), None);
    assert!(
        records
            .data
            .erase(&a)
            .await
            .unwrap()
            .iter()
            .all(|table| table.rows == 0)
    );
}
