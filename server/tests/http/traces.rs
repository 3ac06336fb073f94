//! A caller's trace on the graph interface: taken in, kept with the run, sent on.

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};
use stepgraph_checkpoint::Sqlite;
use stepgraph_nodes::service::embedded::SqliteRecords;
use tempfile::TempDir;

use crate::{
    graphs::{ACME, Served, reaches},
    house,
    provider::{Provider, Seen},
    whole::{self, Whole},
};

fn trace(digit: char) -> String {
    let (id, span) = (String::from(digit).repeat(32), String::from(digit).repeat(16));
    format!("00-{id}-{span}-01")
}

fn run(path: &str, trace: Option<&str>, body: &Value) -> Request<Body> {
    let mut headers = vec![("x-api-key", ACME)];
    headers.extend(trace.map(|trace| ("traceparent", trace)));
    house::request(Method::POST, path, &headers, body.to_string())
}

#[tokio::test]
async fn a_run_is_given_its_callers_trace_and_a_run_without_one_none() {
    let served = Served::new().await;
    let thread = served.thread().await;
    served.gate.permits.add_permits(4);
    let body = json!({"assistant_id": "gated", "input": {"text": "t"}});
    let kept = async || served.get(&thread).await.ok()["metadata"]["traceparent"].clone();
    for (way, sent, taken) in [
        ("wait", Some(trace('a')), Some(trace('a'))),
        ("stream", Some(trace('b')), Some(trace('b'))),
        ("wait", None, None),
        ("wait", Some("00-nothing".to_owned()), None),
    ] {
        let request = run(&format!("{thread}/runs/{way}"), sent.as_deref(), &body);

        let reply = served.send(request).await;

        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(served.gate.traces.lock().unwrap().last(), Some(&taken));
        assert_eq!(kept().await, json!(taken));
    }
}

#[tokio::test]
async fn what_goes_on_with_a_run_is_part_of_its_trace_unless_it_has_one_of_its_own() {
    let served = Served::new().await;
    let body = json!({"assistant_id": "gated", "input": {"text": "t"}, "interrupt_before": ["wait"]});
    served.gate.permits.add_permits(2);
    for (own, taken) in [(None, trace('a')), (Some(trace('b')), trace('b'))] {
        let thread = served.thread().await;
        let path = format!("{thread}/runs/wait");
        served.send(run(&path, Some(&trace('a')), &body)).await.ok();

        served
            .send(run(&path, own.as_deref(), &json!({"assistant_id": "gated"})))
            .await
            .ok();

        assert_eq!(served.gate.traces.lock().unwrap().last(), Some(&Some(taken)));
    }
}

#[tokio::test]
async fn a_run_that_a_killed_process_has_left_is_gone_on_with_under_its_trace() {
    let folder = TempDir::new().unwrap();
    let pool = house::pool(&folder).await;
    let first = Served::over(Sqlite::new(pool.clone()).await.unwrap(), folder).await;
    let thread = first.thread().await;
    let body = json!({"assistant_id": "gated", "input": {"text": "t"}});
    let request = run(&format!("{thread}/runs/stream"), Some(&trace('a')), &body);
    let _reading = tower::ServiceExt::oneshot(first.router.clone(), request).await.unwrap();
    reaches(&first.gate.begun, 1).await;

    // A second server on the same files: the first has never said that its run is over.
    let records = SqliteRecords::open(pool.clone()).await.unwrap();
    let second = first.again(Sqlite::new(pool).await.unwrap(), records);
    second.server.start_workers();
    reaches(&second.gate.begun, 1).await;

    assert_eq!(*second.gate.traces.lock().unwrap(), [Some(trace('a'))]);
    second.gate.permits.add_permits(1);
    second.server.drain().await;
}

#[tokio::test]
async fn a_run_of_the_chat_graph_sends_its_trace_on_to_the_provider_of_models() {
    let provider = Provider::start().await;
    let folder = TempDir::new().unwrap();
    let settings = whole::settings(folder.path(), &provider.environment());
    let whole = Whole::on(whole::installation(&settings).await, &settings).await;
    let key = whole.records().clients.put(&house::client("acme")).await.unwrap();
    let upload = house::upload_body("acme", "d", "The kettle is repaired within two days.");
    let headers = [("x-internal-secret", house::SECRET), ("traceparent", &trace('d'))];
    let (_, uploaded) = whole.send(house::post("/process-document", &headers, &upload)).await;
    assert!(uploaded.contains("\"success\":true"), "{uploaded}");
    let made = house::post("/threads", &[("x-api-key", &key)], &json!({}));
    let thread: Value = serde_json::from_str(&whole.send(made).await.1).unwrap();
    let path = format!("/threads/{}/runs/", thread["thread_id"].as_str().unwrap());
    let seen = |path: &str, digit| {
        let is_it = |seen: &Seen| {
            seen.path == path && seen.trace.as_deref() == Some(&trace(digit)) && seen.body.contains("kettle")
        };
        provider.seen().iter().any(is_it)
    };

    for (way, digit) in [("wait", 'a'), ("stream", 'b')] {
        let question = format!("is the kettle repaired, {way}?");
        let input = json!({"question": question, "session": "s", "asked_at": "2026-01-01T00:00:00Z"});
        let headers = [("x-api-key", key.as_str()), ("traceparent", &trace(digit))];
        let body = json!({"assistant_id": "widget_chat", "input": input});
        let run = house::post(&format!("{path}{way}"), &headers, &body);
        let (status, told) = whole.send(run).await;

        assert!(status.is_success() && told.contains("within two days"), "{told}");
        assert!(seen("/v1/chat/completions", digit), "{way}");
        assert!(seen("/v1/embeddings", digit), "{way}");
    }
    assert!(seen("/v1/embeddings", 'd'), "the document is embedded under its own");
    assert!(provider.seen().iter().all(|seen| seen.trace.is_some()));
    whole.server.drain().await;
}
