//! `POST /chat/stream`: order, bytes and dialects.

use axum::http::StatusCode;
use serde_json::{Value, json};
use stepgraph_server::ErrorCode;

use crate::{
    fakes::{FakeChat, Step},
    house::{House, Reply, SESSION, chat_body, post},
};

async fn stream(house: &House, message: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut all = vec![("x-api-key", house.key.as_str()), ("accept", "text/event-stream")];
    all.extend(headers);
    house.send(post(path, &all, &chat_body(message))).await
}

/// Name, id and data of each event, read by the standard.
fn events(text: &str) -> Vec<(String, Option<String>, String)> {
    text.split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| {
            let field = |name: &str| {
                event
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            (field("event: ").unwrap(), field("id: "), data.join("\n"))
        })
        .collect()
}

#[tokio::test]
async fn the_widgets_stream_is_start_chunks_sources_usage_done() {
    let house = House::new().await;

    for path in ["/chat/stream", "/api/widget/chat/stream"] {
        let reply = stream(&house, path, path, &[]).await;

        let trace = house.chat.commands.lock().unwrap().last().unwrap().run;
        let expected = format!(
            "event: start\ndata: {{\"sessionId\":\"{SESSION}\",\"traceId\":\"{trace}\"}}\n\n\
             event: chunk\ndata: Hello\n\n\
             event: chunk\ndata:  world\n\n\
             event: sources\ndata: [{{\"documentId\":\"guide\",\"title\":\"Guide\",\"excerpt\":\"two years\",\"score\":0.5,\"chunkIndex\":3}}]\n\n\
             event: usage\ndata: {{\"promptTokens\":10,\"completionTokens\":2,\"totalTokens\":12,\"cached\":false,\"model\":\"fake\",\"finishReason\":\"stop\"}}\n\n\
             event: done\ndata: [DONE]\n\n"
        );
        assert_eq!(reply.text, expected);
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert_eq!(reply.header("x-accel-buffering"), Some("no"));
        assert!(reply.header("x-ratelimit-limit").is_some());
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_one_chunk() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Answer("42")]);

    let reply = stream(&house, "hi", "/chat/stream", &[]).await;

    assert!(
        reply.text.contains("event: chunk\ndata: 42\u{2060}\n\n"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn a_failure_after_the_first_token_is_an_event() {
    let house = House::new().await;
    house
        .chat
        .script("hi", &[Step::Say("7"), Step::Fail(ErrorCode::LlmError)]);

    let reply = stream(&house, "hi", "/chat/stream", &[]).await;

    assert_eq!(reply.status, StatusCode::OK);
    let names: Vec<_> = events(&reply.text)
        .into_iter()
        .map(|(name, _, data)| (name, data))
        .skip(1)
        .collect();
    assert_eq!(
        names,
        [
            ("chunk".to_owned(), "7\u{2060}".to_owned()),
            (
                "error".to_owned(),
                "{\"code\":\"LLM_ERROR\",\"message\":\"it went wrong\"}".to_owned()
            ),
        ]
    );
}

#[tokio::test]
async fn a_stream_begins_without_a_token_after_a_while_and_a_late_failure_is_an_event() {
    let house = House::new().await;
    house
        .chat
        .script("slow", &[Step::Gate, Step::Fail(ErrorCode::LlmError)]);
    let request = post("/chat/stream", &[("x-api-key", house.key.as_str())], &chat_body("slow"));

    let response = tower::ServiceExt::oneshot(house.router.clone(), request).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(house.chat.gate.available_permits(), 0);
    house.chat.gate.add_permits(1);
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let events = events(std::str::from_utf8(&bytes).unwrap());
    let names: Vec<_> = events.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["start", "error"]);
}

#[tokio::test]
async fn the_json_dialect_numbers_its_events() {
    let house = House::new().await;
    for (path, accept) in [
        ("/chat/stream?dialect=json", "*/*"),
        ("/chat/stream", "text/event-stream; dialect=json"),
    ] {
        let headers = [("x-api-key", house.key.as_str()), ("accept", accept)];
        let reply = house.send(post(path, &headers, &chat_body("hi"))).await;

        let trace = house.chat.commands.lock().unwrap().last().unwrap().run;
        let events = events(&reply.text);
        let heads: Vec<_> = events.iter().map(|(name, id, _)| (name.as_str(), id.clone())).collect();
        let id = |read: usize| Some(format!("{trace}-{read}"));
        assert_eq!(
            heads,
            [
                ("start", id(0)),
                ("chunk", id(1)),
                ("chunk", id(2)),
                ("sources", None),
                ("usage", None),
                ("done", id(3))
            ]
        );
        assert_eq!(
            serde_json::from_str::<Value>(&events[2].2).unwrap(),
            json!({"text": " world"})
        );
    }
    assert_eq!(
        stream(&house, "hi", "/chat/stream?dialect=xml", &[]).await.reason(),
        "dialect"
    );
}

#[tokio::test]
async fn a_reader_that_returns_gets_the_rest() {
    let house = House::new().await;
    let whole = stream(&house, "hi", "/chat/stream?dialect=json", &[]).await;
    let seen = events(&whole.text)[1].1.clone().unwrap();

    let rest = stream(&house, "hi", "/chat/stream?dialect=json", &[("last-event-id", &seen)]).await;

    assert!(whole.text.ends_with(&rest.text));
    let names: Vec<_> = events(&rest.text).into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(names, ["chunk", "sources", "usage", "done"]);
    assert_eq!(house.chat.runs(), 1);
    let (run, _) = seen.rsplit_once('-').unwrap();
    let strange = "00000000-0000-4000-8000-000000000001-1".to_owned();
    for unsaid in [strange, format!("{run}-999999"), format!("{run}--1"), run.to_owned()] {
        let gone = stream(&house, "hi", "/chat/stream?dialect=json", &[("last-event-id", &unsaid)]).await;
        assert_eq!(
            (gone.status, gone.reason().as_str()),
            (StatusCode::NOT_FOUND, "events_gone"),
            "{unsaid}"
        );
    }
}

#[tokio::test]
async fn a_direct_reader_that_leaves_a_stream_stops_the_run() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Say("Hel"), Step::Gate]);
    let request = post("/chat/stream", &[("x-api-key", house.key.as_str())], &chat_body("hi"));
    let response = tower::ServiceExt::oneshot(house.router.clone(), request).await.unwrap();

    drop(response);

    FakeChat::reaches(&house.chat.cancelled, 1).await;
}
