//! What a tenant's settings change in what a provider's model is asked, and what is booked of it.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};

use super::support::{Home, Ran, listening};

type Asked = Arc<Mutex<Vec<Value>>>;

const QUESTION: &str = "How long is the warranty?";

/// A provider that remembers what it was asked. Its model says that it is 42 years, and counts a million tokens for each
/// question; told to make a cut it breaks off in the middle.
struct Provider {
    url: String,
    asked: Asked,
}

async fn answer(State(asked): State<Asked>, Json(request): Json<Value>) -> ([(&'static str, &'static str); 1], String) {
    let is_cut = request["messages"].to_string().contains("Make a cut.");
    asked.lock().unwrap().push(request);
    let said = json!({ "choices": [{ "index": 0, "delta": { "content": "It is 42 years" } }] });
    let over = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let used = json!({ "choices": [], "usage": { "prompt_tokens": 1_000_000, "completion_tokens": 0 } });
    let event = |event: &Value| format!("data: {event}\n\n");
    let body = if is_cut {
        event(&said)
    } else {
        [said, over, used].iter().map(event).collect::<String>() + "data: [DONE]\n\n"
    };
    ([("content-type", "text/event-stream")], body)
}

impl Provider {
    fn start() -> Self {
        let asked = Asked::default();
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .with_state(Arc::clone(&asked));
        let url = format!("{}/v1", listening(router));
        Self { url, asked }
    }

    fn chat(&self, home: &Home, arguments: &[&str]) -> Ran {
        let mut command = home.command(["chat", "--tenant", "acme"].iter().chain(arguments));
        command
            .env("OPENAI_BASE_URL", &self.url)
            .env("OPENAI_API_KEY", "sk-test");
        Ran::of(&mut command)
    }

    fn ask(&self, home: &Home, session: &str, question: &str) -> Value {
        let arguments = ["--session", session, "--json", question];
        self.chat(home, &arguments).ok().json().remove(0)
    }

    /// What was asked last, and how often anything was.
    fn last(&self) -> (Value, usize) {
        let asked = self.asked.lock().unwrap();
        (asked.last().cloned().unwrap_or_default(), asked.len())
    }
}

/// A tenant with two documents that speak of a warranty.
fn home() -> Home {
    let home = Home::with_tenant();
    for (name, text) in [
        ("kettle.txt", "The warranty of the kettle lasts three years."),
        ("lamp.txt", "The warranty of the lamp lasts one year."),
    ] {
        let file = home.write(name, text);
        home.run(["ingest", &file.to_string_lossy(), "--tenant", "acme"]).ok();
    }
    home
}

fn set(home: &Home, settings: &[&str]) {
    home.run(["tenant", "set", "acme"].iter().chain(settings)).ok();
}

fn roles(request: &Value) -> Vec<&str> {
    let messages = request["messages"].as_array().unwrap().iter();
    messages.map(|message| message["role"].as_str().unwrap()).collect()
}

fn passages(request: &Value) -> usize {
    request["messages"].to_string().matches(" begins ").count()
}

#[test]
fn a_tenants_settings_stand_in_what_its_model_is_asked() {
    let (home, provider) = (home(), Provider::start());
    provider.ask(&home, "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e01", QUESTION);
    let (before, _) = provider.last();
    let own = [
        "model=gpt-4o",
        "temperature=0.25",
        "max-tokens=77",
        "system-prompt=Be formal.",
        "answer-only-from-documents=true",
        "search-limit=1",
    ];
    set(&home, &own);

    provider.ask(&home, "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e02", QUESTION);
    let (after, _) = provider.last();

    assert_eq!((before["model"].as_str(), passages(&before)), (Some("gpt-4o-mini"), 2));
    assert_eq!((after["model"].as_str(), passages(&after)), (Some("gpt-4o"), 1));
    assert_eq!(
        (&after["temperature"], &after["max_tokens"]),
        (&json!(0.25), &json!(77))
    );
    let system = |request: &Value| request["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(system(&before).contains("Prefer what the passages say"), "{before}");
    assert!(system(&after).contains("Use only what the passages say"), "{after}");
    assert!(system(&after).ends_with("Be formal."), "{after}");
}

#[test]
fn how_much_a_session_remembers_and_what_counts_as_found_is_the_tenants() {
    let (home, provider) = (home(), Provider::start());
    let session = "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e03";
    provider.ask(&home, session, QUESTION);
    provider.ask(&home, session, QUESTION);
    assert_eq!(roles(&provider.last().0), ["system", "user", "assistant", "user"]);

    set(&home, &["memory-tokens=1"]);
    provider.ask(&home, session, QUESTION);
    assert_eq!(roles(&provider.last().0), ["system", "user"]);

    set(&home, &["score-threshold=0.9"]);
    let (_, asked) = provider.last();
    let unfound = provider.ask(
        &home,
        "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e04",
        "the warranty of a zeppelin",
    );
    assert_eq!(unfound["answer"], "I don't have that information.");
    assert_eq!(provider.last().1, asked, "nothing was found, so nothing was asked");
}

#[test]
fn the_language_that_a_tenant_sets_holds_where_its_documents_do_not_tell() {
    let home = Home::with_tenant();
    home.run(["tenant", "add", "other"]).ok();
    set(&home, &["language=de"]);
    let file = home.write("list.txt", "Garantien KX-200 KX-300");
    let queries = home.write("queries.jsonl", "{\"id\": \"q\", \"text\": \"Garantie\"}\n");
    let found = |tenant: &str| {
        home.run(["ingest", &file.to_string_lossy(), "--tenant", tenant]).ok();
        let answers = home
            .run(["search", "--tenant", tenant, "--queries", &queries.to_string_lossy()])
            .ok();
        answers.json()[0]["hits"].as_array().unwrap().len()
    };

    assert_eq!((found("acme"), found("other")), (1, 0), "of one stem in German alone");
}

#[test]
fn what_was_asked_of_the_model_before_nothing_was_found_is_booked_at_its_price() {
    let (home, provider) = (Home::with_tenant(), Provider::start());
    set(&home, &["model=gpt-4o"]);
    let session = "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e05";

    provider.ask(&home, session, "What is the capital of France?");
    // The question is put in words that stand alone, and then nothing is found for it.
    let second = provider.ask(&home, session, "And of Spain?");

    assert_eq!(second["answer"], "I don't have that information.");
    assert_eq!((second["model"].as_str(), provider.last().1), (Some("gpt-4o"), 1));
    let rows = home.run(["tenant", "export", "acme"]).ok().json();
    let usage: Vec<_> = rows.iter().filter(|row| row["table"] == "usage_hourly").collect();
    // A million tokens of this model cost 2.50 dollars.
    assert_eq!(usage[0]["row"]["prompt_tokens"], 1_000_000, "{usage:?}");
    assert_eq!(usage[0]["row"]["cost_microcents"], 250_000_000, "{usage:?}");
}

#[test]
fn what_a_model_said_before_it_broke_off_is_shown_to_the_last_word() {
    let (home, provider) = (home(), Provider::start());

    set(&home, &["system-prompt=Make a cut."]);
    let ran = provider.chat(&home, &[QUESTION]);

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("It is 42 years"), "{ran:?}");
}
