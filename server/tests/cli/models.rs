//! What is booked of what a provider's model was asked.

use std::{sync::mpsc, thread};

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};

use super::support::{Home, Ran};

/// A provider whose model says that it is Paris, and counts a million tokens for each question.
fn provider() -> String {
    async fn answer(Json(_): Json<Value>) -> ([(&'static str, &'static str); 1], String) {
        let said = json!({ "choices": [{ "index": 0, "delta": { "content": "Paris it is." } }] });
        let over = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
        let used = json!({ "choices": [], "usage": { "prompt_tokens": 1_000_000, "completion_tokens": 0 } });
        let body = [said, over, used].map(|event| format!("data: {event}\n\n")).concat();
        (
            [("content-type", "text/event-stream")],
            format!("{body}data: [DONE]\n\n"),
        )
    }
    let (address, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let router = Router::new().route("/v1/chat/completions", post(answer));
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{}/v1", told.recv().unwrap())
}

fn ask(home: &Home, provider: &str, question: &str) -> Value {
    const SESSION: &str = "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e6f";
    let arguments = ["chat", "--tenant", "acme", "--session", SESSION, "--json", question];
    let mut command = home.command(arguments);
    command
        .env("OPENAI_BASE_URL", provider)
        .env("OPENAI_API_KEY", "sk-test");
    Ran::of(&mut command).ok().json().remove(0)
}

#[test]
fn what_was_asked_of_the_model_before_nothing_was_found_is_booked_at_its_price() {
    let (home, provider) = (Home::with_tenant(), provider());
    home.run(["tenant", "set", "acme", "model=gpt-4o"]).ok();

    ask(&home, &provider, "What is the capital of France?");
    // The question is put in words that stand alone, and then nothing is found for it.
    let second = ask(&home, &provider, "And of Spain?");

    assert_eq!(
        (&second["answer"], &second["model"]),
        (&json!("I don't have that information."), &json!("gpt-4o"))
    );
    let rows = home.run(["tenant", "export", "acme"]).ok().json();
    let usage: Vec<_> = rows.iter().filter(|row| row["table"] == "usage_hourly").collect();
    // A million tokens of this model cost 2.50 dollars.
    assert_eq!(usage[0]["row"]["prompt_tokens"], 1_000_000, "{usage:?}");
    assert_eq!(usage[0]["row"]["cost_microcents"], 250_000_000, "{usage:?}");
}
