//! Named requests over a restart and over a day.

use serde_json::json;
use stepgraph::RunId;
use stepgraph_nodes::service::{
    Claim, NamedRequest, NamedRequests as _, NamedState, RequestName, embedded::SqliteRecords,
};

use crate::{at, pool, rows, store, tenant};

fn name() -> RequestName {
    RequestName {
        session: "s".to_owned(),
        name: "order-7".to_owned(),
    }
}

async fn found(records: &SqliteRecords) -> Option<NamedRequest> {
    match records.claim(&tenant("a"), &name(), RunId::random()).await.unwrap() {
        Claim::Known(found) => Some(found),
        Claim::Ours => None,
    }
}

#[tokio::test]
async fn a_name_that_a_gone_process_has_left_is_known_as_left_until_it_is_taken_over() {
    let store = store().await;
    let run = RunId::random();
    store.records.claim(&tenant("a"), &name(), run).await.unwrap();
    assert!(!found(&store.records).await.unwrap().is_left);

    let next = SqliteRecords::open(pool(&store.folder).await).await.unwrap();
    let left = found(&next).await.unwrap();

    assert_eq!((left.run, left.is_left), (run, true));
    assert!(next.take_over(&tenant("a"), &name(), &left).await.unwrap());
    assert!(!found(&next).await.unwrap().is_left);
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day_and_its_name_is_free_after_it() {
    let store = store().await;
    let records = store.records.clone().with_clock(|| at("2026-11-22T10:00:00Z"));
    let run = RunId::random();
    records.claim(&tenant("a"), &name(), run).await.unwrap();
    let answer = NamedState::Answered(json!({"text": "two years"}));
    records.note(&tenant("a"), &name(), run, &answer).await.unwrap();

    let almost = store.records.clone().with_clock(|| at("2026-11-23T09:59:59Z"));
    assert_eq!(found(&almost).await.unwrap().state, answer);
    assert_eq!(almost.forget_old(&tenant("a")).await.unwrap(), 0);

    let later = store.records.clone().with_clock(|| at("2026-11-23T10:00:00Z"));
    assert_eq!(later.forget_old(&tenant("b")).await.unwrap(), 0);
    assert_eq!(rows(&store.pool, "named_requests").await, 1);
    assert_eq!(found(&later).await, None, "the name is free");
    assert_eq!(later.forget_old(&tenant("a")).await.unwrap(), 0, "that one is new");
}
