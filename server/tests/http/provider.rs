//! A provider of models that speaks the protocol of `OpenAI`, says what the passages it is shown say, puts a follow-up
//! question as it was put, and remembers every request.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

/// Numbers in a vector.
const DIMENSION: usize = 16;

/// A question with these words is refused when it is asked for the first time.
pub(crate) const REFUSED_ONCE: &str = "at the second time";

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) trace: Option<String>,
    pub(crate) body: String,
}

type Requests = Arc<Mutex<Vec<Seen>>>;

/// The provider, as long as it is held.
pub(crate) struct Provider {
    base_url: String,
    requests: Requests,
    serving: tokio::task::JoinHandle<()>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Requests::default();
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embeddings))
            .route("/v1/models", get(async || Json(json!({"data": []}))))
            .with_state(Arc::clone(&requests));
        Self {
            base_url,
            requests,
            serving: tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
        }
    }

    /// The settings that have it answer and embed for every tenant.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OPENAI_BASE_URL", self.base_url.clone()),
            ("OPENAI_API_KEY", "sk-of-the-house".to_owned()),
            ("STEPGRAPH_MODEL", "gpt-4o-mini".to_owned()),
            ("EMBEDDING_MODEL", "small".to_owned()),
            ("EMBEDDING_DIMENSION", DIMENSION.to_string()),
        ]
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn remember(requests: &Requests, path: &str, headers: &HeaderMap, body: &Value) {
    let trace = headers
        .get("traceparent")
        .map(|trace| trace.to_str().unwrap().to_owned());
    requests.lock().unwrap().push(Seen {
        path: path.to_owned(),
        trace,
        body: body.to_string(),
    });
}

async fn chat(State(requests): State<Requests>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    remember(&requests, uri.path(), &headers, &body);
    let messages = body["messages"].as_array().unwrap();
    let last = messages.last().unwrap()["content"].as_str().unwrap();
    let question = last.lines().last().unwrap_or_default();
    let asked = requests.lock().unwrap();
    let asked = asked
        .iter()
        .filter(|seen| seen.path == uri.path() && seen.body.contains(question))
        .count();
    if question.contains(REFUSED_ONCE) && asked == 1 {
        let error = json!({"error": {"message": "not now", "type": "invalid_request_error"}});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    let tokens = answer(last).into_iter();
    let deltas = tokens.map(|token| json!({"choices": [{"index": 0, "delta": {"content": token}}]}));
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}});
    let events = deltas.chain([end, usage]).map(|event| event.to_string());
    let events = events.chain(["[DONE]".to_owned()]);
    let events: Vec<String> = events.map(|event| format!("data: {event}\n\n")).collect();
    ([("content-type", "text/event-stream")], events.concat()).into_response()
}

/// Every line of the passages with its citation, word by word.
fn answer(last: &str) -> Vec<String> {
    let (mut words, mut passage) = (Vec::new(), None);
    for line in last.lines() {
        if let Some(begins) = line.strip_prefix("[passage ") {
            passage = begins.contains(" begins ").then(|| begins.split(' ').next().unwrap());
        } else if let (Some(number), Some(said)) = (passage, line.strip_prefix("| "))
            && !said.starts_with("title: ")
        {
            words.extend(said.split_inclusive(' ').map(ToOwned::to_owned));
            words.push(format!(" [passage {number}] "));
        }
    }
    if words.is_empty() {
        let question = last.lines().last().unwrap_or_default().to_owned();
        let is_asked = last.starts_with("There are no passages");
        words.push(if is_asked {
            "I do not know.".to_owned()
        } else {
            question
        });
    }
    words
}

async fn embeddings(
    State(requests): State<Requests>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Json<Value> {
    remember(&requests, uri.path(), &headers, &body);
    let texts = body["input"].as_array().unwrap().iter();
    let data: Vec<Value> = texts
        .enumerate()
        .map(|(index, text)| json!({"index": index, "embedding": vector(text.as_str().unwrap())}))
        .collect();
    Json(json!({ "data": data }))
}

/// Texts that share words lie near each other.
fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.1; DIMENSION];
    for word in text.split(|sign: char| !sign.is_alphanumeric()) {
        let mut hash = DefaultHasher::new();
        word.to_lowercase().hash(&mut hash);
        vector[usize::try_from(hash.finish() % 16).unwrap()] += 1.0;
    }
    vector
}
