//! The model of a provider, against a local server that speaks its protocol.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
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
    ChatDelta, ChatModel, ChatRequest, Embedder, FinishReason, Message, ModelName, Purpose, Role, Secret, ServiceError,
    Usage,
    openai::{OpenAi, OpenAiEmbedder, OpenAiOptions},
};
use tokio::sync::mpsc;

const KEY: &str = "sk-test-0123456789";

/// What the server does with the next calls, one answer each; the last one stays.
type Answers = Vec<Box<dyn Fn() -> Response + Send + Sync>>;

struct Provider {
    answers: Answers,
    calls: AtomicU32,
    seen: Mutex<Vec<(HeaderMap, Value)>>,
}

async fn answer(State(provider): State<Arc<Provider>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let call = usize::try_from(provider.calls.fetch_add(1, Ordering::SeqCst)).unwrap();
    provider.seen.lock().unwrap().push((headers, body));
    let last = provider.answers.len() - 1;
    provider.answers.get(call.min(last)).unwrap()()
}

/// Serves `answers` on a free port and returns the base URL.
async fn serve(answers: Answers) -> (String, Arc<Provider>) {
    let provider = Arc::new(Provider {
        answers,
        calls: AtomicU32::new(0),
        seen: Mutex::default(),
    });
    let router = Router::new()
        .route("/v1/chat/completions", post(answer))
        .route("/v1/embeddings", post(answer))
        .route(
            "/v1/models",
            get(|headers: HeaderMap| async move {
                let known = headers
                    .get("authorization")
                    .is_some_and(|value| value == &format!("Bearer {KEY}"));
                if known {
                    Json(json!({"data": []})).into_response()
                } else {
                    StatusCode::UNAUTHORIZED.into_response()
                }
            }),
        )
        .with_state(Arc::clone(&provider));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (base_url, provider)
}

fn options(base_url: &str) -> OpenAiOptions {
    OpenAiOptions::new(base_url, Some(Secret::new(KEY)))
}

fn model(base_url: &str) -> OpenAi {
    OpenAi::new(&options(base_url)).unwrap()
}

fn tenant() -> TenantId {
    TenantId::authenticated("a").unwrap()
}

fn request() -> ChatRequest {
    ChatRequest {
        model: ModelName::new("gpt-4o-mini"),
        messages: vec![
            Message {
                role: Role::System,
                content: "Be kind.".to_owned(),
            },
            Message {
                role: Role::User,
                content: "hello".to_owned(),
            },
        ],
        question: "hello".to_owned(),
        passages: Vec::new(),
        completion_tokens_max: 77,
        temperature: 0.5,
    }
}

async fn ask(model: &OpenAi) -> Result<Vec<ChatDelta>, ServiceError> {
    model.chat(&tenant(), request()).await?.try_collect().await
}

fn text(deltas: &[ChatDelta]) -> String {
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

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn token(text: &str) -> String {
    event(
        &json!({"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
    )
}

fn end(reason: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

const DONE: &str = "data: [DONE]\n\n";

fn whole_answer() -> String {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 8}}});
    [
        ": keep-alive\n\n".to_owned(),
        token("Grüße, "),
        token("Welt 👋"),
        token(""),
        end("stop"),
        event(&usage),
        DONE.to_owned(),
    ]
    .concat()
}

/// A stream of exactly these bytes, cut as given; it stays open behind them when `open` says so.
fn streamed(body: &str, piece_bytes: usize, open: bool) -> Response {
    let pieces: Vec<Result<Vec<u8>, Infallible>> = body
        .as_bytes()
        .chunks(piece_bytes)
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    // Between two pieces the server yields, so that they leave one by one.
    let pieces = stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        piece
    });
    let rest = stream::pending().take(usize::from(open));
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(pieces.chain(rest)))
        .unwrap()
}

fn status(code: u16, headers: &[(&'static str, &str)], body: &Value) -> Response {
    let builder = headers
        .iter()
        .fold(Response::builder().status(code), |builder, (name, value)| {
            builder.header(*name, *value)
        });
    builder.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn an_answer_is_read_whole_however_the_stream_is_cut() {
    for piece_bytes in [1, 2, 3, 7, 50, 100_000] {
        let (base_url, _) = serve(vec![Box::new(move || streamed(&whole_answer(), piece_bytes, false))]).await;

        let deltas = ask(&model(&base_url)).await.unwrap();

        assert_eq!(text(&deltas), "Grüße, Welt 👋");
        let usage = Usage {
            prompt_tokens: 11,
            completion_tokens: 3,
            cached_tokens: 8,
        };
        assert_eq!(
            deltas.last(),
            Some(&ChatDelta::Finish {
                reason: FinishReason::Stop,
                usage
            })
        );
    }
}

#[tokio::test]
async fn the_request_holds_all_that_was_asked_for_and_the_key() {
    let (base_url, provider) = serve(vec![Box::new(|| streamed(&whole_answer(), 1000, false))]).await;

    ask(&model(&base_url)).await.unwrap();
    ask(&OpenAi::new(&OpenAiOptions::new(&base_url, None)).unwrap())
        .await
        .unwrap();

    let seen = provider.seen.lock().unwrap();
    let (headers, body) = seen.first().unwrap();
    assert_eq!(headers.get("authorization").unwrap(), &format!("Bearer {KEY}"));
    assert_eq!(
        *body,
        json!({"model": "gpt-4o-mini", "temperature": 0.5, "max_tokens": 77, "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]})
    );
    assert!(
        !seen.last().unwrap().0.contains_key("authorization"),
        "no key, no header"
    );
}

#[tokio::test]
async fn usage_is_counted_here_when_the_provider_sends_none() {
    let (base_url, _) = serve(vec![Box::new(|| {
        streamed(&[token("hello"), token(" world"), end("length")].concat(), 100, false)
    })])
    .await;

    let deltas = ask(&model(&base_url)).await.unwrap();

    assert!(
        matches!(deltas.last(), Some(ChatDelta::Finish { reason: FinishReason::Length, usage })
            if usage.completion_tokens == 2 && usage.prompt_tokens > 3),
        "{deltas:?}"
    );
}

#[tokio::test]
async fn a_call_refused_for_now_is_tried_again_after_the_wait_asked_for() {
    let (base_url, provider) = serve(vec![
        Box::new(|| {
            status(
                429,
                &[("retry-after", "0")],
                &json!({"error": {"message": "slow down"}}),
            )
        }),
        Box::new(|| status(503, &[("retry-after", "0")], &json!("Loading model"))),
        Box::new(|| streamed(&whole_answer(), 1000, false)),
    ])
    .await;

    assert_eq!(text(&ask(&model(&base_url)).await.unwrap()), "Grüße, Welt 👋");
    assert_eq!(provider.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn retries_end_at_their_limit_and_a_long_wait_is_left_to_the_caller() {
    let (base_url, provider) = serve(vec![Box::new(|| {
        status(500, &[("retry-after", "0")], &json!({"error": {"message": "oops"}}))
    })])
    .await;
    let error = ask(&model(&base_url)).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::Unavailable { .. }) && error.to_string().contains("127.0.0.1"),
        "{error}"
    );
    assert_eq!(provider.calls.load(Ordering::SeqCst), 3);

    let (base_url, provider) = serve(vec![Box::new(|| status(429, &[("retry-after", "3600")], &json!({})))]).await;
    let error = ask(&model(&base_url)).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::RateLimited { retry_after: Some(wait), .. } if wait == Duration::from_hours(1)),
        "{error:?}"
    );
    assert_eq!(provider.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_cannot_pass_is_refused_at_once_with_host_and_remedy_and_without_the_key() {
    let quoting = json!({"error": {"message": format!("key {KEY} is bad"), "type": "invalid_request_error"}});
    let cases = [
        (401, "check it"),
        (403, "check it"),
        (404, "model's name"),
        (400, "limits"),
        (422, "limits"),
        (302, "base URL"),
    ];
    for (code, remedy) in cases {
        let body = quoting.clone();
        let (base_url, provider) = serve(vec![Box::new(move || {
            status(code, &[("location", "http://127.0.0.1:1/")], &body)
        })])
        .await;

        let error = ask(&model(&base_url)).await.unwrap_err();

        let message = error.to_string();
        assert!(matches!(error, ServiceError::Refused { .. }), "{code}: {error:?}");
        assert!(
            message.contains("127.0.0.1") && message.contains(remedy),
            "{code}: {message}"
        );
        assert!(!format!("{error:?} {message}").contains(KEY), "{code}: {error:?}");
        assert_eq!(provider.calls.load(Ordering::SeqCst), 1, "{code}");
    }
    let empty = json!({"error": {"message": "no credit", "code": "insufficient_quota"}});
    let (base_url, provider) = serve(vec![Box::new(move || status(429, &[], &empty))]).await;
    assert!(
        ask(&model(&base_url))
            .await
            .unwrap_err()
            .to_string()
            .contains("add credit")
    );
    assert_eq!(provider.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_stream_after_what_was_said() {
    let failure = event(&json!({"error": {"message": "out of memory"}}));
    let cases: [(&str, String); 3] = [
        ("out of memory", [token("so far"), failure].concat()),
        (
            "not of its protocol",
            [token("so far"), "data: {\"choices\": [\n\n".to_owned()].concat(),
        ),
        ("without a reason", [token("so far"), DONE.to_owned()].concat()),
    ];
    for (words, body) in cases {
        let (base_url, provider) = serve(vec![Box::new(move || streamed(&body, 10, false))]).await;

        let mut stream = model(&base_url).chat(&tenant(), request()).await.unwrap();

        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            ChatDelta::Text("so far".to_owned())
        );
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(stream.next().await.is_none());
        assert_eq!(
            provider.calls.load(Ordering::SeqCst),
            1,
            "what has begun is never tried again"
        );
    }
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up_at_the_limit() {
    const SHORT: Duration = Duration::from_millis(80);
    const LONG: Duration = Duration::from_mins(1);
    let silent: Answers = vec![Box::new(|| streamed("", 1, true))];
    let (base_url, _) = serve(silent).await;
    let options = |first_token_timeout, idle_timeout| {
        let mut options = options(&base_url);
        (options.first_token_timeout, options.idle_timeout) = (first_token_timeout, idle_timeout);
        options
    };
    let error = ask(&OpenAi::new(&options(SHORT, LONG)).unwrap()).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::Timeout { limit, .. } if limit == SHORT),
        "{error:?}"
    );

    let (base_url, _) = serve(vec![Box::new(|| streamed(&token("begun"), 1000, true))]).await;
    let mut options = OpenAiOptions::new(base_url, None);
    (options.first_token_timeout, options.idle_timeout) = (LONG, SHORT);
    let mut stream = OpenAi::new(&options).unwrap().chat(&tenant(), request()).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(ChatDelta::Text(_)))));
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, ServiceError::Timeout { limit, .. } if limit == SHORT),
        "{error:?}"
    );
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (gone, noticed) = mpsc::channel::<()>(1);
    let (base_url, _) = serve(vec![Box::new(move || {
        let gone = gone.clone();
        let body = stream::iter([Ok::<_, Infallible>(token("begun"))]).chain(stream::once(async move {
            // Held by the body until the server lets go of it.
            let _held = gone;
            std::future::pending::<Result<String, Infallible>>().await
        }));
        Response::builder().body(Body::from_stream(body)).unwrap()
    })])
    .await;
    let mut stream = model(&base_url).chat(&tenant(), request()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());

    assert_eq!(noticed.sender_strong_count(), 2);
    drop(stream);

    // One sender lives in the server's list of answers, the other in the body until the server drops it.
    let closed = async {
        while noticed.sender_strong_count() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let mut options = options(&base_url);
    options.retries_max = 0;

    let error = ask(&OpenAi::new(&options).unwrap()).await.unwrap_err();

    assert!(matches!(error, ServiceError::Unavailable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("127.0.0.1") && error.to_string().contains("check that it runs"),
        "{error}"
    );
}

#[tokio::test]
async fn ping_tells_a_provider_that_answers_from_one_that_refuses_the_key() {
    let (base_url, _) = serve(vec![Box::new(|| streamed("", 1, false))]).await;

    model(&base_url).ping().await.unwrap();

    let wrong = OpenAiOptions::new(&base_url, Some(Secret::new("sk-wrong")));
    assert!(matches!(
        OpenAi::new(&wrong).unwrap().ping().await.unwrap_err(),
        ServiceError::Refused { .. }
    ));
}

#[tokio::test]
async fn embeddings_come_back_in_the_order_of_their_texts() {
    let data = json!({"data": [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]});
    let (base_url, provider) = serve(vec![Box::new(move || Json(data.clone()).into_response())]).await;
    let texts = ["one".to_owned(), "two".to_owned()];
    let embedder = |dimension| OpenAiEmbedder::new(&options(&base_url), ModelName::new("small"), dimension).unwrap();

    let vectors = embedder(2).embed(&tenant(), Purpose::Document, &texts).await.unwrap();

    assert_eq!(vectors, [[1.0, 0.0], [0.0, 1.0]]);
    assert_eq!(
        provider.seen.lock().unwrap().first().unwrap().1,
        json!({"model": "small", "input": ["one", "two"], "encoding_format": "float"})
    );
    let error = embedder(3).embed(&tenant(), Purpose::Query, &texts).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::Mismatch { .. }) && error.to_string().contains("reindex"),
        "{error}"
    );
    let error = embedder(2)
        .embed(&tenant(), Purpose::Query, texts.first_chunk::<1>().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Corrupt { .. }), "{error}");
}
