//! The caller's trace, which an answer keeps when another process finishes it.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use reqwest::Client;
use serde_json::{Value, json};
use stepgraph_nodes::service::tls;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::support::{Home, Running, knowledge, listening};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const QUESTION: &str = "how long is the warranty?";

/// A provider that leaves its first caller without an answer, and says of each what its trace is.
struct Provider {
    url: String,
    traces: mpsc::UnboundedReceiver<(usize, String)>,
}

struct Told {
    calls: AtomicUsize,
    traces: mpsc::UnboundedSender<(usize, String)>,
}

impl Provider {
    fn start() -> Self {
        let (sender, traces) = mpsc::unbounded_channel();
        let told = Told {
            calls: AtomicUsize::new(0),
            traces: sender,
        };
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state(Arc::new(told));
        let url = format!("{}/v1", listening(router));
        Self { url, traces }
    }
}

async fn complete(State(told): State<Arc<Told>>, headers: HeaderMap) -> Response {
    let call = told.calls.fetch_add(1, Ordering::SeqCst);
    let trace = headers
        .get("traceparent")
        .map_or("none", |trace| trace.to_str().unwrap());
    told.traces.send((call, trace.to_owned())).unwrap();
    if call == 0 {
        pending::<()>().await;
    }
    let chunk = |delta: Value, reason: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        });
        format!("data: {chunk}\n\n")
    };
    let said = chunk(json!({"role": "assistant", "content": "36 months [1]."}), Value::Null);
    let ended = chunk(json!({}), json!("stop"));
    (
        [(CONTENT_TYPE, "text/event-stream")],
        format!("{said}{ended}data: [DONE]\n\n"),
    )
        .into_response()
}

fn served(home: &Home, provider: &Provider) -> (Running, String) {
    let mut command = home.command(["serve", "--port", "0", "--json"]);
    command
        .env("OPENAI_BASE_URL", &provider.url)
        .env("OPENAI_API_KEY", "sk-hush")
        .env("STEPGRAPH_MODEL", "gpt-4o-mini");
    let mut running = Running::of(&mut command);
    let ready: Value = serde_json::from_str(&running.line()).unwrap();
    (running, ready["url"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_a_later_process_finishes_is_asked_for_under_the_trace_of_its_message() {
    tls::install();
    let home = Home::new();
    let key = home.run(["tenant", "add", "acme"]).ok().stdout.trim().to_owned();
    home.run([
        "ingest".as_ref(),
        knowledge().as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
    ])
    .ok();
    let mut provider = Provider::start();

    let (first, url) = served(&home, &provider);
    let request = Client::new()
        .post(format!("{url}/chat"))
        .header("x-api-key", key)
        .header("traceparent", TRACE)
        .json(&json!({"message": QUESTION, "sessionId": Uuid::new_v4()}));
    let asked = tokio::spawn(request.send());
    assert_eq!(provider.traces.recv().await.unwrap(), (0, TRACE.to_owned()));
    first.kill();
    assert!(asked.await.unwrap().is_err(), "its server is gone");

    let (mut second, _) = served(&home, &provider);

    assert_eq!(provider.traces.recv().await.unwrap(), (1, TRACE.to_owned()));
    second.logged("a run of an earlier process was finished");
}
