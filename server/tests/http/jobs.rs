//! The job queue: nothing is lost, nothing runs twice at once, and who wants to know is told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use serde_json::Value;
use stepgraph::TenantId;
use stepgraph_nodes::service::DocumentId;
use stepgraph_server::{Dispatch, HttpSettings, IngestJob, JobHandler, SqliteDispatch, Verdict};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    fakes::FakeChat,
    house::{House, SECRET, pool, post as post_to, upload_body},
};

fn job(document: &str) -> IngestJob {
    IngestJob::new(TenantId::authenticated("acme").unwrap(), DocumentId::new(document), 1)
}

/// Remembers what it was given; a job named in `verdicts` gets those first, one named `hang` never ends.
struct Notes {
    handled: Mutex<Vec<(String, u32)>>,
    traces: Mutex<Vec<Option<String>>>,
    verdicts: Mutex<HashMap<String, Vec<Verdict>>>,
    count: watch::Sender<usize>,
}

impl Notes {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            handled: Mutex::default(),
            traces: Mutex::default(),
            verdicts: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    fn handled(&self) -> Vec<(String, u32)> {
        self.handled.lock().unwrap().clone()
    }
}

#[async_trait]
impl JobHandler for Notes {
    async fn handle(&self, job: &IngestJob, attempt: u32) -> Verdict {
        let name = job.document.as_str().to_owned();
        self.handled.lock().unwrap().push((name.clone(), attempt));
        self.traces
            .lock()
            .unwrap()
            .push(job.trace.map(|trace| trace.to_string()));
        self.count.send_modify(|count| *count += 1);
        if name == "hang" && attempt == 1 {
            std::future::pending::<()>().await;
        }
        let mut verdicts = self.verdicts.lock().unwrap();
        verdicts
            .get_mut(&name)
            .filter(|waiting| !waiting.is_empty())
            .map_or(Verdict::Done, |waiting| waiting.remove(0))
    }
}

#[tokio::test]
async fn a_job_held_by_a_process_that_died_is_taken_over_at_the_next_start() {
    let folder = TempDir::new().unwrap();
    let (first, notes) = (SqliteDispatch::open(pool(&folder).await).await.unwrap(), Notes::new());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    first.enqueue(&job("hang").traced(trace.parse().ok())).await.unwrap();
    let process = tokio::spawn({
        let (first, notes) = (first.clone(), Arc::clone(&notes));
        async move { first.serve(notes, 1, CancellationToken::new()).await }
    });
    FakeChat::reaches(&notes.count, 1).await;
    process.abort();
    let _ = process.await;

    let second = SqliteDispatch::open(pool(&folder).await).await.unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (second, notes, stop) = (second.clone(), Arc::clone(&notes), stop.clone());
        async move { second.serve(notes, 1, stop).await }
    });
    FakeChat::reaches(&notes.count, 2).await;
    stop.cancel();
    serving.await.unwrap().unwrap();

    assert_eq!(notes.handled(), [("hang".to_owned(), 1), ("hang".to_owned(), 2)]);
    assert_eq!(
        *notes.traces.lock().unwrap(),
        [Some(trace.to_owned()), Some(trace.to_owned())],
        "it goes on under the trace of the request that brought it"
    );
    assert_eq!(second.waiting().await.unwrap(), 0, "a stop keeps what was finished");
}

#[tokio::test]
async fn the_same_job_twice_is_one_until_it_is_done() {
    let folder = TempDir::new().unwrap();
    let (dispatch, notes) = (SqliteDispatch::open(pool(&folder).await).await.unwrap(), Notes::new());
    for name in ["a", "a", "b"] {
        dispatch.enqueue(&job(name)).await.unwrap();
    }
    assert_eq!(dispatch.waiting().await.unwrap(), 2);
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (dispatch, notes, stop) = (dispatch.clone(), Arc::clone(&notes), stop.clone());
        async move { dispatch.serve(notes, 1, stop).await }
    });
    FakeChat::reaches(&notes.count, 2).await;
    while dispatch.waiting().await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }

    dispatch.enqueue(&job("a")).await.unwrap();
    FakeChat::reaches(&notes.count, 3).await;

    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(notes.handled().iter().filter(|(name, _)| name == "a").count(), 2);
}

#[tokio::test]
async fn a_job_that_shall_come_back_does_with_a_higher_count() {
    let folder = TempDir::new().unwrap();
    let (dispatch, notes) = (SqliteDispatch::open(pool(&folder).await).await.unwrap(), Notes::new());
    let again = Verdict::Again(Duration::ZERO);
    notes
        .verdicts
        .lock()
        .unwrap()
        .insert("a".to_owned(), vec![again, again]);
    dispatch.enqueue(&job("a")).await.unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (notes, stop) = (Arc::clone(&notes), stop.clone());
        async move { dispatch.serve(notes, 1, stop).await }
    });

    FakeChat::reaches(&notes.count, 3).await;

    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(
        notes.handled().iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[tokio::test]
async fn the_pool_keeps_its_own_settings() {
    let folder = TempDir::new().unwrap();
    let pool = pool(&folder).await;
    SqliteDispatch::open(pool.clone()).await.unwrap();
    for _ in 0..8 {
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&pool).await.unwrap();
        assert_eq!(
            synchronous, 2,
            "a queue that turns off syncing loses jobs with the power"
        );
    }
}

#[derive(Clone, Default)]
struct Receiver {
    updates: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    calls: Arc<Mutex<usize>>,
}

#[tokio::test]
async fn progress_is_told_in_both_spellings_and_tried_three_times() {
    let receiver = Receiver::default();
    let app = Router::new()
        .route(
            "/api/internal/document-progress",
            post(
                async |State(receiver): State<Receiver>, headers: HeaderMap, Json(update): Json<Value>| {
                    let mut calls = receiver.calls.lock().unwrap();
                    *calls += 1;
                    // The first update is lost for good after three tries, what follows arrives.
                    if *calls <= 3 {
                        return axum::http::StatusCode::INTERNAL_SERVER_ERROR;
                    }
                    receiver.updates.lock().unwrap().push((headers, update));
                    axum::http::StatusCode::OK
                },
            ),
        )
        .with_state(receiver.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let listening = tokio::spawn(async move { axum::serve(listener, app).await });
    let house = House::with(HttpSettings {
        progress_callback: Some(origin),
        ..HttpSettings::default()
    })
    .await;
    house.server.start_workers();

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("x-internal-secret", SECRET), ("traceparent", trace)];
    let reply = house
        .send(post_to(
            "/process-document",
            &headers,
            &upload_body("acme", "d1", "words"),
        ))
        .await;
    house.server.drain().await;

    assert_eq!(
        reply.json()["success"],
        true,
        "a receiver that fails does not fail the ingestion"
    );
    let updates = receiver.updates.lock().unwrap();
    let (headers, update) = updates.last().unwrap();
    assert_eq!((updates.len(), *receiver.calls.lock().unwrap()), (1, 4));
    assert_eq!(headers["x-internal-secret"], SECRET);
    assert_eq!(headers["traceparent"], trace);
    assert_eq!(
        (&update["documentId"], &update["document_id"]),
        (&Value::from("d1"), &Value::from("d1"))
    );
    assert_eq!(
        (&update["status"], &update["chunksTotal"], &update["chunks_total"]),
        (&"completed".into(), &3.into(), &3.into())
    );
    listening.abort();
}

#[tokio::test]
async fn the_jobs_of_an_erased_tenant_are_gone_and_those_of_one_whose_name_begins_alike_stay() {
    let folder = TempDir::new().unwrap();
    let dispatch = SqliteDispatch::open(pool(&folder).await).await.unwrap();
    let tenants = ["acme", "acme2", "ac%", "%"].map(|name| TenantId::authenticated(name).unwrap());
    for tenant in &tenants {
        for document in ["a", "b"] {
            let job = IngestJob::new(tenant.clone(), DocumentId::new(document), 1);
            dispatch.enqueue(&job).await.unwrap();
        }
    }

    for (erased, tenant) in tenants.iter().enumerate() {
        dispatch.erase(tenant).await.unwrap();

        for (other, tenant) in tenants.iter().enumerate() {
            let left = if other <= erased { 0 } else { 2 };
            assert_eq!(dispatch.of_tenant(tenant).await.unwrap(), left, "{tenant}");
        }
    }
    assert_eq!(dispatch.waiting().await.unwrap(), 0);
}
