//! Chat by Anthropic's Messages API.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use stepgraph_nodes::{
    service::{
        ChatDelta, ChatModel, FinishReason, ProviderOptions, Role, Secret, ServiceError, Usage, anthropic::Anthropic,
    },
    trace,
};

use crate::server::{
    KEY, Provider, TRACE, ask, broken_off, cut_at, message, request, status, streamed, tenant, text, time_to_close,
};

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn start() -> String {
    event(
        &json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
        "model": "m", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 5, "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 100, "output_tokens": 1}}}),
    )
}

fn token(text: &str) -> String {
    event(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}))
}

fn end(reason: &str) -> String {
    let ending = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 15}});
    [
        event(&json!({"type": "content_block_stop", "index": 0})),
        event(&ending),
        event(&json!({"type": "message_stop"})),
    ]
    .concat()
}

fn failure(kind: &str) -> String {
    event(&json!({"type": "error", "error": {"type": kind, "message": "as it says"}}))
}

fn whole_answer() -> String {
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    [
        start(),
        event(&block),
        event(&json!({"type": "ping"})),
        token("Grüße, "),
        event(&json!({"type": "of_the_future", "delta": 7})),
        token("Welt 👋"),
        end("end_turn"),
    ]
    .concat()
}

const WHOLE: ChatDelta = ChatDelta::Finish {
    reason: FinishReason::Stop,
    usage: Usage {
        prompt_tokens: 125,
        completion_tokens: 15,
        cached_tokens: 100,
        cache_write_tokens: 20,
        is_estimated: false,
    },
};

#[tokio::test]
async fn an_answer_is_read_whole_wherever_the_stream_is_cut() {
    let cuts = whole_answer().len();
    let provider = Provider::answering(|call| cut_at(&whole_answer(), call)).await;
    let model = provider.anthropic();

    for cut in 0..cuts {
        let deltas = ask(&model).await.unwrap();

        assert_eq!(text(&deltas), "Grüße, Welt 👋", "cut at {cut}");
        assert_eq!(deltas.last(), Some(&WHOLE), "cut at {cut}");
    }
}

#[tokio::test]
async fn lines_may_end_as_windows_ends_them() {
    let provider = Provider::answering(|_| streamed(&whole_answer().replace('\n', "\r\n"), 1)).await;

    assert_eq!(ask(&provider.anthropic()).await.unwrap().last(), Some(&WHOLE));
}

#[tokio::test]
async fn the_static_part_of_the_system_is_marked_to_be_kept_and_the_rest_is_apart() {
    let provider = Provider::answering(|_| streamed(&whole_answer(), 1000)).await;
    let mut asked = request();
    asked.messages = vec![
        message(Role::System, "Be kind."),
        message(Role::System, "Today is Sunday."),
        message(Role::Assistant, "Welcome!"),
        message(Role::User, ""),
        message(Role::User, "hello"),
    ];

    let model = provider.anthropic();
    let asked = trace::within(TRACE.parse().ok(), model.chat(&tenant(), asked)).await;
    assert!(asked.is_ok());

    assert_eq!(
        provider.last_body(),
        json!({"model": "of-the-house", "max_tokens": 77, "temperature": 0.5, "stream": true,
        "system": [
            {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Today is Sunday."},
        ],
        "messages": [
            {"role": "user", "content": "(The conversation began earlier.)"},
            {"role": "assistant", "content": "Welcome!"},
            {"role": "user", "content": "hello"},
        ]})
    );
    assert_eq!(provider.last_header("x-api-key").as_deref(), Some(KEY));
    assert_eq!(provider.last_header("anthropic-version").as_deref(), Some("2023-06-01"));
    assert_eq!(provider.last_header("authorization"), None);
    assert_eq!(provider.last_header("traceparent").as_deref(), Some(TRACE));
}

#[tokio::test]
async fn every_reason_of_an_end_is_told_apart() {
    const CASES: [(&str, FinishReason); 5] = [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("refusal", FinishReason::Filtered),
    ];
    let provider =
        Provider::answering(|call| streamed(&[start(), token("x"), end(CASES[call].0)].concat(), 1000)).await;

    for (name, expected) in CASES {
        let deltas = ask(&provider.anthropic()).await.unwrap();

        assert!(
            matches!(deltas.last(), Some(ChatDelta::Finish { reason, .. }) if *reason == expected),
            "{name}"
        );
    }
}

#[tokio::test]
async fn thinking_is_a_sign_of_life_and_so_is_a_ping_between_tokens() {
    let thinking =
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}});
    let ping = || event(&json!({"type": "ping"}));
    let body = [
        start(),
        ping(),
        event(&thinking),
        token("a"),
        ping(),
        token("b"),
        end("end_turn"),
    ]
    .concat();
    let provider = Provider::answering(move |_| streamed(&body, 1000)).await;

    let deltas = ask(&provider.anthropic()).await.unwrap();

    let texts = [ChatDelta::Text("a".to_owned()), ChatDelta::Text("b".to_owned())];
    let [a, b] = texts;
    assert_eq!(
        deltas.first_chunk(),
        Some(&[ChatDelta::Working, a, ChatDelta::Working, b])
    );
}

#[tokio::test]
async fn an_error_in_the_stream_is_told_by_its_kind() {
    const CASES: [(&str, &str); 8] = [
        ("overloaded_error", "service::unavailable"),
        ("api_error", "service::unavailable"),
        ("timeout_error", "service::unavailable"),
        ("rate_limit_error", "service::rate_limited"),
        ("invalid_request_error", "service::refused"),
        ("authentication_error", "service::refused"),
        ("not_found_error", "service::refused"),
        ("billing_error", "service::refused"),
    ];
    let provider = Provider::answering(|call| {
        let (kind, _) = CASES[call / 2];
        let said = if call % 2 == 0 { String::new() } else { token("so far") };
        streamed(&[start(), said, failure(kind)].concat(), 50)
    })
    .await;

    for (kind, code) in CASES {
        for said in ["", "so far"] {
            let mut stream = provider.anthropic().chat(&tenant(), request()).await.unwrap();
            if !said.is_empty() {
                assert_eq!(stream.next().await.unwrap().unwrap(), ChatDelta::Text(said.to_owned()));
            }
            let error = stream.next().await.unwrap().unwrap_err();
            assert_eq!(error.code(), code, "{kind}: {error}");
            assert!(stream.next().await.is_none());
        }
    }
}

#[tokio::test]
async fn an_overloaded_provider_is_unavailable_and_may_say_for_how_long() {
    let body = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let provider = Provider::answering(move |call| match call {
        0 => status(529, &[], &body),
        1 => status(529, &[("retry-after", "7")], &body),
        _ => status(
            413,
            &[],
            &json!({"type": "error", "error": {"type": "request_too_large", "message": "no"}}),
        ),
    })
    .await;
    let model = provider.anthropic();

    let error = ask(&model).await.unwrap_err();
    assert!(
        matches!(&error, ServiceError::Unavailable { .. }) && error.to_string().contains("529"),
        "{error}"
    );
    assert_eq!(error.retry_after(), None);
    assert_eq!(
        ask(&model).await.unwrap_err().retry_after(),
        Some(Duration::from_secs(7))
    );
    assert!(matches!(ask(&model).await.unwrap_err(), ServiceError::Refused { .. }));
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_an_error_until_the_answer_has_its_reason() {
    let bodies = [
        (broken_off as fn(String) -> _, [start(), token("so far")].concat()),
        (|body: String| streamed(&body, 1000), [start(), token("so far")].concat()),
        (
            |body: String| streamed(&body, 1000),
            [start(), token("so far"), event(&json!({"type": "message_stop"}))].concat(),
        ),
        (
            |body: String| streamed(&body, 1000),
            [start(), token("so far"), "data: {\"type\":\n\n".to_owned()].concat(),
        ),
        (
            |body: String| streamed(&body, 1000),
            [
                start(),
                token("so far"),
                event(&json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "t"}})),
            ]
            .concat(),
        ),
    ];
    let count = bodies.len();
    let provider = Provider::answering(move |call| {
        if let Some((make, body)) = bodies.get(call) {
            return make(body.clone());
        }
        let ending =
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}});
        broken_off([start(), token("so far"), event(&ending)].concat())
    })
    .await;
    for call in 0..count {
        let mut stream = provider.anthropic().chat(&tenant(), request()).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("127.0.0.1"), "{call}: {error}");
        assert!(stream.next().await.is_none(), "{call}");
    }

    let whole = ask(&provider.anthropic()).await.unwrap();

    assert!(matches!(whole.last(), Some(ChatDelta::Finish { usage, .. }) if usage.completion_tokens == 2));
}

#[tokio::test]
async fn a_temperature_above_the_providers_own_limit_is_refused() {
    let provider = Provider::answering(|_| streamed(&whole_answer(), 1000)).await;
    let mut hot = request();
    hot.temperature = Some(1.2);

    let error = provider.anthropic().chat(&tenant(), hot).await.err().unwrap();

    assert!(error.to_string().contains("up to 1, not 1.2"), "{error}");
    assert_eq!(provider.calls(), 0);
}

#[tokio::test]
async fn a_refused_key_is_not_printed() {
    let body = json!({"type": "error", "error": {"type": "authentication_error", "message": format!("bad {KEY}")}});
    let provider = Provider::answering(move |_| status(401, &[], &body)).await;

    let error = ask(&provider.anthropic()).await.unwrap_err();

    assert!(error.to_string().contains("check it"), "{error}");
    assert!(!format!("{error:?} {error} {:?}", provider.anthropic()).contains(KEY));
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection_at_once() {
    let taken = time_to_close([start(), token("begun")].concat(), Provider::anthropic).await;

    assert!(taken < Duration::from_millis(100), "{taken:?}");
}

#[tokio::test]
async fn ping_tells_a_provider_that_answers_from_one_that_refuses_the_key() {
    let provider = Provider::answering(|_| streamed("", 1)).await;

    provider.anthropic().ping().await.unwrap();

    let wrong = ProviderOptions::new(&provider.base_url, Some(Secret::new("sk-wrong")));
    let refused = Anthropic::new(&wrong).unwrap().ping().await.unwrap_err();
    assert!(matches!(refused, ServiceError::Refused { .. }), "{refused}");
}
