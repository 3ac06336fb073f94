//! `POST /chat`: the answer, its limits, and what a repeat finds.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use stepgraph_nodes::service::{Client, Clients, Tier};
use stepgraph_server::{ErrorCode, HttpSettings, Limits};
use tower::ServiceExt;

use crate::{
    fakes::{FakeChat, Step},
    house::{House, SESSION, chat_body, client, post},
};

fn few_messages() -> HttpSettings {
    HttpSettings {
        limits: Limits {
            free_messages: 2,
            paid_messages: 3,
            ..Limits::default()
        },
        ..HttpSettings::default()
    }
}

#[tokio::test]
async fn the_answer_has_the_members_the_existing_client_reads() {
    let house = House::new().await;

    let reply = house.say("hi").await;

    let body = reply.json();
    let trace = body["traceId"].as_str().unwrap().to_owned();
    assert_eq!(
        body,
        json!({
            "response": "Hello world",
            "sessionId": SESSION,
            "sources": [{"documentId": "guide", "title": "Guide", "excerpt": "two years", "score": 0.5, "chunkIndex": 3}],
            "usage": {
                "promptTokens": 10, "completionTokens": 2, "totalTokens": 12, "cached": false,
                "model": "fake", "finishReason": "stop"
            },
            "traceId": trace,
        })
    );
    assert_eq!(house.chat.commands.lock().unwrap()[0].run.to_string(), trace);
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn snake_case_is_understood_and_the_session_is_kept_as_sent() {
    let house = House::new().await;
    let session = SESSION.to_uppercase();
    let body = json!({"message": "hi", "session_id": session, "client_id": "acme", "metadata": {"pageUrl": "https://x.example"}, "unknown": 1});

    let reply = house.internal(Method::POST, "/api/widget/chat", body).await;

    assert_eq!(reply.json()["sessionId"], session);
    let commands = house.chat.commands.lock().unwrap();
    assert_eq!(commands[0].session, session);
    assert_eq!(commands[0].metadata["pageUrl"], "https://x.example");
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_told() {
    let house = House::new().await;
    let cases: [(Value, &str); 8] = [
        (json!({"message": "", "sessionId": SESSION}), "message_length"),
        (
            json!({"message": "é".repeat(2_001), "sessionId": SESSION}),
            "message_length",
        ),
        (json!({"message": "hi", "sessionId": "abc"}), "session_id"),
        (
            json!({"message": "hi", "sessionId": format!("{{{SESSION}}}")}),
            "session_id",
        ),
        (json!({"message": "hi"}), "body"),
        (json!({"message": 7, "sessionId": SESSION}), "body"),
        (json!({"message": "hi", "sessionId": SESSION, "metadata": []}), "body"),
        (
            json!({"message": "x".repeat(70_000), "sessionId": SESSION}),
            "body_too_large",
        ),
    ];
    for path in ["/chat", "/chat/stream"] {
        for (body, reason) in &cases {
            let reply = house.send(post(path, &[("x-api-key", &house.key)], body)).await;

            assert_eq!(
                (reply.status, reply.code().as_str()),
                (StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
                "{reason}"
            );
            assert_eq!(reply.reason(), *reason);
        }
    }
    assert_eq!(house.chat.runs(), 0);
}

#[tokio::test]
async fn two_thousand_characters_of_any_width_pass() {
    let house = House::new().await;

    assert_eq!(house.say(&"🦀".repeat(2_000)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn failures_have_the_status_of_their_code_and_the_run_as_trace() {
    let house = House::new().await;
    for (code, status) in [
        (ErrorCode::LlmError, 502),
        (ErrorCode::VectorSearchError, 502),
        (ErrorCode::Timeout, 504),
        (ErrorCode::ServiceUnavailable, 503),
        (ErrorCode::ProcessingError, 500),
    ] {
        for path in ["/chat", "/chat/stream"] {
            let message = format!("{path} {}", code.as_str());
            house.chat.script(&message, &[Step::Fail(code)]);
            let reply = house
                .send(post(path, &[("x-api-key", &house.key)], &chat_body(&message)))
                .await;

            assert_eq!(
                (reply.status.as_u16(), reply.code().as_str()),
                (status, code.as_str()),
                "{path}"
            );
            assert_eq!(reply.json()["error"]["message"], "it went wrong");
            assert_eq!(
                reply.json()["traceId"],
                house.chat.commands.lock().unwrap().last().unwrap().run.to_string()
            );
            assert_eq!(
                reply.header("retry-after").is_some(),
                code == ErrorCode::ServiceUnavailable
            );
            assert!(
                reply.header("x-ratelimit-remaining").is_some(),
                "limits stand on failures too"
            );
        }
    }
}

#[tokio::test]
async fn a_run_that_panics_or_says_nothing_is_a_processing_error() {
    let house = House::new().await;
    house.chat.script("panic", &[Step::Say("Hel"), Step::Panic]);
    house.chat.script("silence", &[]);
    for message in ["panic", "silence"] {
        let reply = house.say(message).await;

        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (500, "PROCESSING_ERROR"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_answer_beyond_its_budget_is_a_timeout_and_the_run_is_told_to_stop() {
    let house = House::with(HttpSettings {
        answer_budget: Duration::ZERO,
        ..HttpSettings::default()
    })
    .await;
    house.chat.script("hang", &[Step::Gate]);

    let reply = house.say("hang").await;

    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (504, "TIMEOUT"));
    FakeChat::reaches(&house.chat.cancelled, 1).await;
}

#[tokio::test]
async fn messages_are_counted_by_the_hour_and_refused_above_the_limit() {
    let house = House::with(few_messages()).await;

    let replies = [house.say("one").await, house.say("two").await, house.say("three").await];

    let remaining: Vec<_> = replies
        .iter()
        .map(|reply| reply.header("x-ratelimit-remaining").unwrap())
        .collect();
    assert_eq!(remaining, ["1", "0", "0"]);
    let refused = &replies[2];
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED")
    );
    assert_eq!(refused.header("x-ratelimit-limit"), Some("2"));
    let reset: i64 = refused.header("x-ratelimit-reset").unwrap().parse().unwrap();
    assert_eq!(reset % 3_600, 0);
    let wait: i64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3_600).contains(&wait));
    assert_eq!(refused.reason(), "RATE_LIMIT_EXCEEDED");
    assert_eq!(house.chat.runs(), 2);
    let streamed = house
        .send(post("/chat/stream", &[("x-api-key", &house.key)], &chat_body("four")))
        .await;
    assert_eq!(streamed.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn each_tenant_has_its_own_count_its_tiers_limit_or_none() {
    let house = House::with(few_messages()).await;
    let paid = house
        .clients
        .put(&Client {
            tier: Tier::Paid,
            ..client("paid")
        })
        .await
        .unwrap();
    let free = house
        .clients
        .put(&Client {
            unlimited: true,
            ..client("unlimited")
        })
        .await
        .unwrap();
    house.say("one").await;

    let paid = house
        .send(post("/chat", &[("x-api-key", &paid)], &chat_body("hi")))
        .await;
    assert_eq!(
        (paid.header("x-ratelimit-limit"), paid.header("x-ratelimit-remaining")),
        (Some("3"), Some("2"))
    );
    for _ in 0..5 {
        let reply = house
            .send(post("/chat", &[("x-api-key", &free)], &chat_body("hi")))
            .await;
        assert_eq!(
            (reply.status, reply.header("x-ratelimit-limit")),
            (StatusCode::OK, None)
        );
    }
}

#[tokio::test]
async fn above_its_limit_a_paid_tenant_is_served_and_charged_unless_it_has_a_hard_cap() {
    let house = House::with(few_messages()).await;
    for (id, hard_cap) in [("open", false), ("capped", true)] {
        let mut tenant = Client {
            tier: Tier::Paid,
            ..client(id)
        };
        tenant.settings.hard_cap = hard_cap;
        let key = house.clients.put(&tenant).await.unwrap();
        for _ in 0..3 {
            house
                .send(post("/chat", &[("x-api-key", &key)], &chat_body("hi")))
                .await;
        }
        let runs = house.chat.runs();

        let fourth = house
            .send(post("/chat", &[("x-api-key", &key)], &chat_body("hi")))
            .await;

        assert_eq!(fourth.header("x-ratelimit-remaining"), Some("0"));
        if hard_cap {
            assert_eq!(fourth.status, StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(house.chat.runs(), runs);
        } else {
            assert_eq!(fourth.status, StatusCode::OK);
            let commands = house.chat.commands.lock().unwrap();
            let charged: Vec<_> = commands.iter().map(|command| command.overage).collect();
            assert_eq!(charged, [false, false, false, true]);
        }
    }
}

#[tokio::test]
async fn equal_messages_at_once_are_one_run() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Gate, Step::Answer("once")]);
    let join = async {
        FakeChat::reaches(&house.chat.begun, 1).await;
        // A stream that has begun without a token has found its run.
        let request = post("/chat/stream", &[("x-api-key", &house.key)], &chat_body("hi"));
        let stream = house.router.clone().oneshot(request).await.unwrap();
        house.chat.gate.add_permits(1);
        stream
    };

    let (whole, stream) = tokio::join!(house.say("hi"), join);

    let headers = stream.headers().clone();
    let bytes = axum::body::to_bytes(stream.into_body(), usize::MAX).await.unwrap();
    let streamed = std::str::from_utf8(&bytes).unwrap();
    assert!(
        streamed.contains(whole.json()["traceId"].as_str().unwrap()),
        "{streamed}"
    );
    assert!(streamed.contains("data: once\n"), "{streamed}");
    assert_eq!(house.chat.runs(), 1);
    assert_eq!(headers["x-ratelimit-remaining"], "99");
}

#[tokio::test]
async fn an_equal_message_after_a_delivered_answer_is_a_new_one() {
    let house = House::new().await;

    let (first, second) = (house.say("hi").await, house.say("hi").await);

    assert_ne!(first.json()["traceId"], second.json()["traceId"]);
    assert_eq!(house.chat.runs(), 2);
}

#[tokio::test]
async fn a_repeat_after_a_failure_goes_on_with_the_same_run_and_counts_once() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Fail(ErrorCode::LlmError)]);

    let (failed, repeated) = (house.say("hi").await, house.say("hi").await);

    assert_eq!((failed.status.as_u16(), repeated.status.as_u16()), (502, 200));
    assert_eq!(failed.json()["traceId"], repeated.json()["traceId"]);
    let commands = house.chat.commands.lock().unwrap();
    assert_eq!((commands[0].repeat, commands[1].repeat), (false, true));
    assert_eq!(repeated.header("x-ratelimit-remaining"), Some("99"));
}

#[tokio::test]
async fn an_answer_whose_caller_left_is_kept_for_the_repeat() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Gate, Step::Answer("kept")]);
    let mut body = chat_body("hi");
    body["clientId"] = "acme".into();
    let lost = house.internal(Method::POST, "/chat", body.clone());
    tokio::select! {
        _ = lost => panic!("the gate is closed"),
        () = FakeChat::reaches(&house.chat.begun, 1) => {}
    }
    house.chat.gate.add_permits(1);
    FakeChat::reaches(&house.chat.ended, 1).await;

    let repeated = house.internal(Method::POST, "/chat", body).await;

    assert_eq!(repeated.json()["response"], "kept");
    assert_eq!(house.chat.runs(), 1);
}

#[tokio::test]
async fn a_direct_caller_who_leaves_stops_the_run() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Gate, Step::Answer("never")]);
    tokio::select! {
        _ = house.say("hi") => panic!("the gate is closed"),
        () = FakeChat::reaches(&house.chat.begun, 1) => {}
    }

    FakeChat::reaches(&house.chat.cancelled, 1).await;

    assert_eq!(
        house.say("hi").await.json()["response"],
        "Hello world",
        "what was given up is not gone on with"
    );
}

#[tokio::test]
async fn a_named_request_is_answered_once_a_day() {
    let house = House::new().await;
    let named = |message: &str, path: &str| {
        post(
            path,
            &[("x-api-key", &house.key), ("idempotency-key", "order-7")],
            &chat_body(message),
        )
    };

    let first = house.send(named("hi", "/chat")).await;
    FakeChat::reaches(&house.chat.ended, 1).await;
    let again = house.send(named("other words", "/chat")).await;
    let streamed = house.send(named("hi", "/chat/stream")).await;

    assert_eq!(first.json(), again.json());
    assert!(streamed.text.contains("data: Hello world\n"), "{}", streamed.text);
    assert_eq!(house.chat.runs(), 1);
    let bad = post(
        "/chat",
        &[("x-api-key", &house.key), ("idempotency-key", "")],
        &chat_body("hi"),
    );
    assert_eq!(house.send(bad).await.reason(), "idempotency_key");
}

#[tokio::test]
async fn the_answer_leaves_before_the_log_is_written_and_a_stop_waits_for_the_log() {
    let house = House::new().await;
    house.chat.script("hi", &[Step::Answer("early"), Step::Gate]);

    let reply = house.say("hi").await;

    assert_eq!(reply.json()["response"], "early");
    assert_eq!(*house.chat.ended.borrow(), 0);
    let drained = house.server.drain();
    tokio::pin!(drained);
    assert!(futures_util::poll!(&mut drained).is_pending());
    house.chat.gate.add_permits(1);
    drained.await;
    assert_eq!((*house.chat.ended.borrow(), *house.chat.cancelled.borrow()), (1, 0));
}

#[tokio::test]
async fn sessions_and_tenants_never_join_each_other() {
    let house = House::new().await;
    let other = house.clients.put(&client("other")).await.unwrap();
    for _ in 0..3 {
        house.chat.script("hi", &[Step::Gate, Step::Answer("mine")]);
    }
    let mut elsewhere = chat_body("hi");
    elsewhere["sessionId"] = "00000000-0000-4000-8000-000000000001".into();
    let requests = [
        post("/chat", &[("x-api-key", &house.key)], &chat_body("hi")),
        post("/chat", &[("x-api-key", &other)], &chat_body("hi")),
        post("/chat", &[("x-api-key", &house.key)], &elsewhere),
    ];
    let answers = requests.map(|request| house.router.clone().oneshot(request));
    let open = async {
        FakeChat::reaches(&house.chat.begun, 3).await;
        house.chat.gate.add_permits(3);
    };

    let (answers, ()) = tokio::join!(futures_util::future::join_all(answers), open);

    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().status() == StatusCode::OK)
    );
    assert_eq!(house.chat.runs(), 3);
}

#[tokio::test]
async fn the_callers_trace_is_taken_in_where_it_is_well_formed() {
    let house = House::new().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (message, sent, taken) in [("a", trace, Some(trace)), ("b", "00-nothing", None)] {
        let headers = [("x-api-key", house.key.as_str()), ("traceparent", sent)];

        house.send(post("/chat", &headers, &chat_body(message))).await;

        let commands = house.chat.commands.lock().unwrap();
        let command = commands.last().unwrap();
        assert_eq!(command.trace.map(|trace| trace.to_string()).as_deref(), taken);
    }
}
