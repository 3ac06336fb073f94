//! The layer around models: tries, limits of time, breaker.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, ModelName, ProviderOptions, ServiceError, Usage,
    openai::OpenAi, resilience::CallLimits,
};
use tokio::time::{Instant, sleep};

use crate::{
    openai::{token, whole_answer},
    server::{Provider, ask, hanging, limits, request, resilient, status, streamed, tenant, text},
};

/// What a model does: waits so many milliseconds before each delta.
type Script = Vec<Step>;

/// A wait in milliseconds, and what comes then.
type Step = (u64, Result<ChatDelta, ServiceError>);

/// Does as it is told, call by call; the last script stays.
#[derive(Clone)]
struct Told {
    script: Arc<dyn Fn(usize) -> Script + Send + Sync>,
    calls: Arc<AtomicUsize>,
    temperatures: Arc<Mutex<Vec<Option<f32>>>>,
}

impl Told {
    fn new(script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            calls: Arc::default(),
            temperatures: Arc::default(),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ChatModel for Told {
    fn provider(&self) -> &'static str {
        "told"
    }

    async fn chat(&self, _tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        self.temperatures.lock().unwrap().push(request.temperature);
        let script = (self.script)(self.calls.fetch_add(1, Ordering::SeqCst));
        Ok(Box::pin(stream::iter(script).then(|(wait, delta)| async move {
            sleep(Duration::from_millis(wait)).await;
            delta
        })))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}

fn say(wait: u64, text: &str) -> Step {
    (wait, Ok(ChatDelta::Text(text.to_owned())))
}

fn finish(reason: FinishReason) -> Step {
    let usage = Usage::default();
    (0, Ok(ChatDelta::Finish { reason, usage }))
}

fn down(wait: u64) -> Step {
    let error = ServiceError::Unavailable {
        service: "told",
        message: "down".to_owned(),
        source: None,
    };
    (wait, Err(error))
}

fn whole() -> Script {
    vec![say(0, "hello"), finish(FinishReason::Stop)]
}

#[tokio::test]
async fn a_call_refused_for_now_is_tried_again_after_the_wait_asked_for() {
    let provider = Provider::answering(|call| match call {
        0 => status(
            429,
            &[("retry-after", "0")],
            &json!({"error": {"message": "slow down"}}),
        ),
        1 => {
            let now = "Sun, 22 Nov 2026 10:00:00 GMT";
            status(503, &[("retry-after", now), ("date", now)], &json!("Loading model"))
        }
        _ => streamed(&whole_answer(), 1000),
    })
    .await;

    let deltas = ask(&resilient(provider.openai(), limits())).await.unwrap();

    assert_eq!(text(&deltas), "Grüße, Welt 👋");
    assert_eq!(provider.calls(), 3);
}

#[tokio::test]
async fn retries_end_at_their_limit_and_a_long_wait_is_left_to_the_caller() {
    let provider =
        Provider::answering(|_| status(500, &[("retry-after", "0")], &json!({"error": {"message": "oops"}}))).await;
    let error = ask(&resilient(provider.openai(), limits())).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::Unavailable { .. }) && error.to_string().contains("127.0.0.1"),
        "{error}"
    );
    assert_eq!(provider.calls(), 3);

    for code in [429, 529] {
        let provider = Provider::answering(move |_| status(code, &[("retry-after", "3600")], &json!({}))).await;
        let error = ask(&resilient(provider.anthropic(), limits())).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_hours(1)), "{error:?}");
        assert_eq!(provider.calls(), 1);
    }
}

#[tokio::test]
async fn a_refusal_and_what_has_begun_are_never_tried_again() {
    let provider = Provider::answering(|call| match call {
        0 => status(400, &[], &json!({})),
        _ => streamed(
            &[
                token("so far"),
                "data: {\"error\": {\"message\": \"m\"}}\n\n".to_owned(),
            ]
            .concat(),
            1000,
        ),
    })
    .await;
    let model = resilient(provider.openai(), limits());

    assert!(ask(&model).await.is_err());
    assert_eq!(provider.calls(), 1);
    assert!(ask(&model).await.unwrap_err().is_retryable());
    assert_eq!(provider.calls(), 2);
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up_at_the_limit() {
    const SHORT: Duration = Duration::from_millis(80);
    let provider = Provider::answering(|call| hanging(if call == 0 { String::new() } else { token("begun") })).await;
    let mut first = limits();
    first.first_token_timeout = SHORT;
    let error = ask(&resilient(provider.openai(), first)).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::Timeout { limit, .. } if limit == SHORT),
        "{error:?}"
    );

    let mut idle = limits();
    idle.idle_timeout = SHORT;
    let model = resilient(provider.openai(), idle);
    let mut stream = model.chat(&tenant(), request()).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(ChatDelta::Text(_)))));
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, ServiceError::Timeout { limit, .. } if limit == SHORT),
        "{error:?}"
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let mut once = limits();
    once.retries_max = 0;
    let model = OpenAi::new(&ProviderOptions::new(&base_url, None)).unwrap();

    let error = ask(&resilient(model, once)).await.unwrap_err();

    assert!(matches!(error, ServiceError::Unavailable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("127.0.0.1") && error.to_string().contains("check that it runs"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_try_begins_that_the_caller_would_not_wait_for() {
    let told = Told::new(|_| vec![down(600)]);
    let model = resilient(told.clone(), limits());
    let began = Instant::now();
    let mut hurried = request();
    hurried.answer_by = Some(began + Duration::from_millis(700));

    let error = model.chat(&tenant(), hurried).await.err().unwrap();

    assert!(
        error.to_string().contains("down"),
        "the reason, not a time-out: {error}"
    );
    assert_eq!((told.calls(), began.elapsed()), (1, Duration::from_millis(600)));
}

#[tokio::test(start_paused = true)]
async fn all_tries_share_the_time_for_the_first_token() {
    let told = Told::new(|_| vec![down(8_000)]);
    let mut patient = limits();
    patient.retries_max = 9;
    let began = Instant::now();

    let error = ask(&resilient(told.clone(), patient)).await.unwrap_err();

    assert!(matches!(error, ServiceError::Timeout { .. }), "{error}");
    assert_eq!((told.calls(), began.elapsed()), (3, Duration::from_secs(20)));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_thinks_aloud_is_waited_for() {
    let working = || (9_000, Ok(ChatDelta::Working));
    let told = Told::new(move |_| {
        vec![
            working(),
            working(),
            working(),
            say(9_000, "so"),
            finish(FinishReason::Stop),
        ]
    });

    let deltas = ask(&resilient(told, limits())).await.unwrap();

    assert_eq!(text(&deltas), "so");
}

#[tokio::test]
async fn an_answer_without_a_word_is_an_error_unless_it_was_withheld() {
    let told = Told::new(|call| {
        let end = [
            FinishReason::Length,
            FinishReason::Stop,
            FinishReason::Filtered,
            FinishReason::Length,
        ];
        let thought = if call == 3 {
            vec![(0, Ok(ChatDelta::Working))]
        } else {
            vec![]
        };
        thought.into_iter().chain([finish(end[call])]).collect()
    });
    let model = resilient(told, limits());

    assert!(
        ask(&model)
            .await
            .unwrap_err()
            .to_string()
            .contains("raise the limit of tokens")
    );
    assert!(ask(&model).await.unwrap_err().to_string().contains("without a word"));
    assert!(ask(&model).await.is_ok());
    assert!(
        ask(&model)
            .await
            .unwrap_err()
            .to_string()
            .contains("raise the limit of tokens")
    );
}

#[tokio::test]
async fn an_option_that_the_model_cannot_honour_is_refused_before_the_call() {
    let told = Told::new(|_| whole());
    let model = resilient(told.clone(), limits());
    let mut hot = request();
    hot.model = ModelName::new("gpt-5-mini");

    let error = model.chat(&tenant(), hot.clone()).await.err().unwrap();
    assert!(error.to_string().contains("takes no temperature"), "{error}");
    assert_eq!(told.calls(), 0);

    hot.temperature = None;
    let answer = model.chat(&tenant(), hot).await.unwrap();
    assert_eq!(text(&answer.try_collect::<Vec<_>>().await.unwrap()), "hello");
    assert_eq!(*told.temperatures.lock().unwrap(), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_again_and_again_is_not_asked_for_a_while() {
    let told = Told::new(|call| if call < 4 { vec![down(0)] } else { whole() });
    let mut limits = CallLimits::default();
    (limits.failures_max, limits.retries_max) = (4, 1);
    let model = resilient(told.clone(), limits);

    for _ in 0..2 {
        assert!(ask(&model).await.unwrap_err().to_string().contains("down"));
    }
    let held_back = ask(&model).await.unwrap_err();
    assert!(held_back.to_string().contains("not asked for"), "{held_back}");
    assert_eq!(told.calls(), 4);
    assert_eq!(model.held_back(), [request().model]);

    tokio::time::advance(limits.open_for).await;
    assert_eq!(text(&ask(&model).await.unwrap()), "hello");
    assert!(model.held_back().is_empty());
}

#[tokio::test(start_paused = true)]
async fn callers_in_a_hurry_and_limits_of_rate_say_nothing_against_a_model() {
    let told = Told::new(|call| match call {
        0..10 => vec![say(1_000, "late")],
        10..20 => vec![(
            0,
            Err(ServiceError::RateLimited {
                service: "told",
                message: "slow".to_owned(),
                retry_after: Some(Duration::from_hours(1)),
            }),
        )],
        _ => whole(),
    });
    let mut limits = CallLimits::default();
    limits.failures_max = 2;
    let model = resilient(told, limits);

    for _ in 0..10 {
        let mut hurried = request();
        hurried.answer_by = Some(Instant::now() + Duration::from_millis(10));
        assert!(model.chat(&tenant(), hurried).await.is_err());
    }
    for _ in 0..10 {
        assert!(ask(&model).await.is_err());
    }

    assert_eq!(text(&ask(&model).await.unwrap()), "hello");
}
