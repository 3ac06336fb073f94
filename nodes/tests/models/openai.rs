//! Chat by the protocol of OpenAI.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use stepgraph_nodes::{
    service::{ChatDelta, ChatModel, FinishReason, ProviderOptions, Role, Secret, ServiceError, Usage, openai::OpenAi},
    trace,
};

use crate::server::{
    KEY, Provider, TRACE, ask, broken_off, cut_at, event, message, request, status, streamed, tenant, text,
    time_to_close,
};

pub(crate) const DONE: &str = "data: [DONE]\n\n";

pub(crate) fn token(text: &str) -> String {
    event(
        &json!({"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
    )
}

pub(crate) fn end(reason: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

fn delta(delta: &Value) -> String {
    event(&json!({"choices": [{"index": 0, "delta": delta}]}))
}

pub(crate) fn whole_answer() -> String {
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

const USAGE: Usage = Usage {
    prompt_tokens: 11,
    completion_tokens: 3,
    cached_tokens: 8,
    cache_write_tokens: 0,
    is_estimated: false,
};

#[tokio::test]
async fn an_answer_is_read_whole_wherever_the_stream_is_cut() {
    let cuts = whole_answer().len();
    let provider = Provider::answering(|call| cut_at(&whole_answer(), call)).await;
    let model = provider.openai();

    for cut in 0..cuts {
        let deltas = ask(&model).await.unwrap();

        assert_eq!(text(&deltas), "Grüße, Welt 👋", "cut at {cut}");
        let whole = ChatDelta::Finish {
            reason: FinishReason::Stop,
            usage: USAGE,
        };
        assert_eq!(deltas.last(), Some(&whole), "cut at {cut}");
    }
}

#[tokio::test]
async fn an_answer_is_read_whole_from_pieces_of_any_size() {
    const SIZES: [usize; 5] = [1, 2, 3, 7, 100_000];
    let provider = Provider::answering(|call| streamed(&whole_answer(), SIZES[call])).await;

    for size in SIZES {
        assert_eq!(
            text(&ask(&provider.openai()).await.unwrap()),
            "Grüße, Welt 👋",
            "{size}"
        );
    }
}

#[tokio::test]
async fn the_request_holds_all_that_was_asked_for_the_key_and_the_trace() {
    let provider = Provider::answering(|_| streamed(&whole_answer(), 1000)).await;

    trace::within(TRACE.parse().ok(), ask(&provider.openai()))
        .await
        .unwrap();

    assert_eq!(provider.last_header("authorization"), Some(format!("Bearer {KEY}")));
    assert_eq!(provider.last_header("traceparent").as_deref(), Some(TRACE));
    assert_eq!(
        provider.last_body(),
        json!({"model": "of-the-house", "temperature": 0.5, "max_tokens": 77, "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]})
    );

    let open = OpenAi::new(&ProviderOptions::new(&provider.base_url, None)).unwrap();
    let mut plain = request();
    plain.temperature = None;
    plain.messages.insert(1, message(Role::System, "Today is Sunday."));
    assert!(open.chat(&tenant(), plain).await.is_ok());

    assert_eq!(provider.last_header("authorization"), None, "no key, no header");
    assert_eq!(provider.last_header("traceparent"), None);
    assert_eq!(provider.last_body().get("temperature"), None);
    assert_eq!(
        provider.last_body()["messages"][0],
        json!({"role": "system", "content": "Be kind.\n\nToday is Sunday."})
    );
}

#[tokio::test]
async fn usage_is_counted_here_and_said_to_be_when_the_provider_sends_none() {
    let provider =
        Provider::answering(|_| streamed(&[token("hello"), token(" world"), end("length")].concat(), 100)).await;

    let deltas = ask(&provider.openai()).await.unwrap();

    assert!(
        matches!(deltas.last(), Some(ChatDelta::Finish { reason: FinishReason::Length, usage })
            if usage.completion_tokens == 2 && usage.prompt_tokens > 3 && usage.is_estimated),
        "{deltas:?}"
    );
}

#[tokio::test]
async fn what_a_model_says_to_itself_is_a_sign_of_life_and_no_text() {
    let provider = Provider::answering(|_| {
        let body = [
            delta(&json!({"role": "assistant", "content": null, "reasoning_content": "hm"})),
            delta(&json!({"content": "", "reasoning": "hm"})),
            event(&json!({"choices": null})),
            event(&json!({"choices": [{"index": 1, "delta": {"content": "another answer"}}]})),
            delta(&json!({"content": "yes"})),
            end("content_filter"),
        ];
        streamed(&body.concat(), 100)
    })
    .await;

    let deltas = ask(&provider.openai()).await.unwrap();

    assert_eq!(deltas.first_chunk(), Some(&[ChatDelta::Working, ChatDelta::Working]));
    assert_eq!(text(&deltas), "yes");
    assert!(matches!(
        deltas.last(),
        Some(ChatDelta::Finish {
            reason: FinishReason::Filtered,
            ..
        })
    ));
}

#[tokio::test]
async fn what_cannot_pass_is_refused_with_host_and_remedy_and_without_the_key() {
    const CASES: [(u16, &str); 6] = [
        (401, "check it"),
        (403, "check it"),
        (404, "model's name"),
        (400, "limits"),
        (422, "limits"),
        (302, "base URL"),
    ];
    let quoting = json!({"error": {"message": format!("key {KEY} is bad"), "type": "invalid_request_error"}});
    let provider =
        Provider::answering(move |call| status(CASES[call].0, &[("location", "http://127.0.0.1:1/")], &quoting)).await;
    for (code, remedy) in CASES {
        let error = ask(&provider.openai()).await.unwrap_err();

        let message = error.to_string();
        assert!(matches!(error, ServiceError::Refused { .. }), "{code}: {error:?}");
        assert!(
            message.contains("127.0.0.1") && message.contains(remedy),
            "{code}: {message}"
        );
        assert!(!format!("{error:?} {message}").contains(KEY), "{code}: {error:?}");
    }
    let empty = json!({"error": {"message": "no credit", "code": "insufficient_quota"}});
    let provider = Provider::answering(move |_| status(429, &[], &empty)).await;
    let error = ask(&provider.openai()).await.unwrap_err();
    assert!(error.to_string().contains("add credit"), "{error}");
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_stream_after_what_was_said() {
    let failure = |error: Value| [token("so far"), event(&json!({"error": error}))].concat();
    let cases: Vec<(&str, &str, String)> = vec![
        (
            "service::unavailable",
            "out of memory",
            failure(json!({"message": "out of memory"})),
        ),
        (
            "service::rate_limited",
            "too often",
            failure(json!({"message": "m", "code": "rate_limit_exceeded"})),
        ),
        (
            "service::refused",
            "add credit",
            failure(json!({"message": "m", "code": "insufficient_quota"})),
        ),
        (
            "service::corrupt",
            "not of its protocol",
            [token("so far"), "data: {\"choices\": [\n\n".to_owned()].concat(),
        ),
        (
            "service::corrupt",
            "calls a tool",
            [token("so far"), end("tool_calls")].concat(),
        ),
        (
            "service::unavailable",
            "the model failed",
            [token("so far"), end("error")].concat(),
        ),
        (
            "service::unavailable",
            "without a reason",
            [token("so far"), DONE.to_owned()].concat(),
        ),
    ];
    let bodies: Vec<String> = cases.iter().map(|(_, _, body)| body.clone()).collect();
    let provider = Provider::answering(move |call| streamed(&bodies[call], 10)).await;
    for (code, words, _) in cases {
        let mut stream = provider.openai().chat(&tenant(), request()).await.unwrap();

        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            ChatDelta::Text("so far".to_owned())
        );
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.code() == code && error.to_string().contains(words), "{error:?}");
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_until_the_answer_has_its_end() {
    let provider = Provider::answering(|call| {
        let end = if call == 0 { String::new() } else { end("stop") };
        broken_off([token("so far"), end].concat())
    })
    .await;

    let mut cut = provider.openai().chat(&tenant(), request()).await.unwrap();
    assert!(cut.next().await.unwrap().is_ok());
    let error = cut.next().await.unwrap().unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("broke off"),
        "{error:?}"
    );

    let whole = ask(&provider.openai()).await.unwrap();
    assert!(matches!(whole.last(), Some(ChatDelta::Finish { usage, .. }) if usage.is_estimated));
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection_at_once() {
    let taken = time_to_close(token("begun"), Provider::openai).await;

    assert!(taken < Duration::from_millis(100), "{taken:?}");
}

#[tokio::test]
async fn ping_tells_a_provider_that_answers_from_one_that_refuses_the_key() {
    let provider = Provider::answering(|_| streamed("", 1)).await;

    provider.openai().ping().await.unwrap();

    let wrong = ProviderOptions::new(&provider.base_url, Some(Secret::new("sk-wrong")));
    assert!(matches!(
        OpenAi::new(&wrong).unwrap().ping().await.unwrap_err(),
        ServiceError::Refused { .. }
    ));
}
