//! A server that says exactly what it was told to.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    Catalogue, ChatDelta, ChatModel, ChatRequest, Message, ModelName, ProviderOptions, Role, Secret, ServiceError,
    anthropic::Anthropic,
    openai::OpenAi,
    resilience::{CallLimits, Resilient},
};
use tokio::sync::mpsc;

pub(crate) const KEY: &str = "sk-test-0123456789";
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What the server does with a call, by its number.
type Answer = Box<dyn Fn(usize) -> Response + Send + Sync>;

pub(crate) struct Provider {
    pub(crate) base_url: String,
    answer: Answer,
    calls: AtomicUsize,
    pub(crate) seen: Mutex<Vec<(HeaderMap, Value)>>,
}

impl Provider {
    /// Serves on a free port: the protocols of both providers.
    pub(crate) async fn answering(answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
            answer: Box::new(answer),
            calls: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(reply))
            .route("/v1/embeddings", post(reply))
            .route("/v1/messages", post(reply))
            .route("/v1/models", get(models))
            .with_state(Arc::clone(&provider));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        provider
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn options(&self) -> ProviderOptions {
        ProviderOptions::new(&self.base_url, Some(Secret::new(KEY)))
    }

    pub(crate) fn openai(&self) -> OpenAi {
        OpenAi::new(&self.options()).unwrap()
    }

    pub(crate) fn anthropic(&self) -> Anthropic {
        Anthropic::new(&self.options()).unwrap()
    }

    pub(crate) fn last_body(&self) -> Value {
        self.seen.lock().unwrap().last().unwrap().1.clone()
    }

    pub(crate) fn last_header(&self, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let value = seen.last().unwrap().0.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }
}

async fn reply(State(provider): State<Arc<Provider>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    provider.seen.lock().unwrap().push((headers, body));
    (provider.answer)(provider.calls.fetch_add(1, Ordering::SeqCst))
}

async fn models(headers: HeaderMap) -> Response {
    let has = |name, value: &str| headers.get(name).is_some_and(|sent| sent == value);
    if has("authorization", &format!("Bearer {KEY}"))
        || (has("x-api-key", KEY) && has("anthropic-version", "2023-06-01"))
    {
        Json(json!({"data": []})).into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::authenticated("a").unwrap()
}

pub(crate) fn message(role: Role, content: &str) -> Message {
    Message {
        role,
        content: content.to_owned(),
    }
}

pub(crate) fn request() -> ChatRequest {
    ChatRequest {
        model: ModelName::new("of-the-house"),
        messages: vec![message(Role::System, "Be kind."), message(Role::User, "hello")],
        question: "hello".to_owned(),
        passages: Vec::new(),
        completion_tokens_max: 77,
        temperature: Some(0.5),
        answer_by: None,
        fallback: None,
    }
}

pub(crate) async fn ask(model: &impl ChatModel) -> Result<Vec<ChatDelta>, ServiceError> {
    model.chat(&tenant(), request()).await?.try_collect().await
}

/// Limits with short waits and no breaker to speak of.
pub(crate) fn limits() -> CallLimits {
    let mut limits = CallLimits::default();
    limits.failures_max = 1_000;
    limits
}

pub(crate) fn resilient(model: impl ChatModel, limits: CallLimits) -> Resilient {
    Resilient::new(Arc::new(model), limits, Arc::new(Catalogue::builtin().unwrap()))
}

pub(crate) fn text(deltas: &[ChatDelta]) -> String {
    deltas
        .iter()
        .filter_map(|delta| {
            if let ChatDelta::Text(text) = delta {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect()
}

pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// A stream of exactly these bytes, cut as given.
pub(crate) fn streamed(body: &str, piece_bytes: usize) -> Response {
    let pieces: Vec<Vec<u8>> = body.as_bytes().chunks(piece_bytes).map(<[u8]>::to_vec).collect();
    pieced(pieces)
}

/// The same in two pieces.
pub(crate) fn cut_at(body: &str, byte: usize) -> Response {
    let (head, tail) = body.as_bytes().split_at(byte);
    pieced(vec![head.to_vec(), tail.to_vec()])
}

fn pieced(pieces: Vec<Vec<u8>>) -> Response {
    // Between two pieces the server yields, so that they leave one by one.
    let pieces = stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    event_stream(Body::from_stream(pieces))
}

/// These bytes, and then a connection that breaks.
pub(crate) fn broken_off(body: String) -> Response {
    let rest = stream::once(async {
        tokio::task::yield_now().await;
        Err(io::Error::other("the plug was pulled"))
    });
    event_stream(Body::from_stream(stream::iter([Ok(body)]).chain(rest)))
}

/// These bytes, and then nothing, for as long as the reader stays.
pub(crate) fn hanging(body: String) -> Response {
    event_stream(Body::from_stream(
        stream::iter([Ok::<_, Infallible>(body)]).chain(stream::pending()),
    ))
}

/// As [`hanging`]; `gone` loses a sender once the reader has left.
pub(crate) fn watched(body: String, gone: &mpsc::Sender<()>) -> Response {
    let held = gone.clone();
    let rest = stream::once(async move {
        let _held = held;
        std::future::pending().await
    });
    event_stream(Body::from_stream(stream::iter([Ok::<_, Infallible>(body)]).chain(rest)))
}

fn event_stream(body: Body) -> Response {
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(body)
        .unwrap()
}

pub(crate) fn status(code: u16, headers: &[(&'static str, &str)], body: &Value) -> Response {
    let builder = headers
        .iter()
        .fold(Response::builder().status(code), |builder, (name, value)| {
            builder.header(*name, *value)
        });
    builder.body(Body::from(body.to_string())).unwrap()
}

/// How long the server takes to see that the reader of an answer has left. The best of some tries, since other tests share
/// the machine.
pub(crate) async fn time_to_close<M: ChatModel>(begin: String, model: impl Fn(&Provider) -> M) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let (gone, noticed) = mpsc::channel::<()>(1);
        let (first, sent) = (begin.clone(), gone.clone());
        let provider = Provider::answering(move |_| watched(first.clone(), &sent)).await;
        let mut stream = model(&provider).chat(&tenant(), request()).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        // One here, one in the server's list of answers, one in the body until the server drops it.
        assert_eq!(noticed.sender_strong_count(), 3);
        let left = tokio::time::Instant::now();
        drop(stream);
        let closed = async {
            while noticed.sender_strong_count() > 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
        best = best.min(left.elapsed());
    }
    best
}
