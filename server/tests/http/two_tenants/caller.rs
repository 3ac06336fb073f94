//! One who calls for a tenant, and what each of its operations must show.

use axum::http::StatusCode;
use serde_json::{Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::service::SearchQuery;
use uuid::Uuid;

use super::{CALLERS, NAMES, WORDS, World, assert_apart};
use crate::house::upload_body;

/// Documents of each caller.
const DOCUMENTS: usize = 3;

/// Pseudorandom numbers from a seed that a failure can be repeated with.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One who calls for a tenant, one operation after another; both tenants have callers that name things alike.
pub(super) struct Caller<'a> {
    world: &'a World,
    of: usize,
    number: usize,
    dice: Dice,
    /// The fact that each document states now.
    facts: [Option<u64>; DOCUMENTS],
    next_fact: u64,
    /// Facts that no document states any more.
    gone: Vec<u64>,
    answer: Option<String>,
}

impl<'a> Caller<'a> {
    /// The caller of this number for the tenant of that one.
    pub(super) fn new(world: &'a World, of: usize, number: usize) -> Self {
        let seed = u64::try_from(of * CALLERS + number).unwrap() + 1;
        Self {
            world,
            of,
            number,
            dice: Dice(0x9e37_79b9_7f4a_7c15 ^ (seed << 20)),
            facts: Default::default(),
            next_fact: 0,
            gone: Vec::new(),
            answer: None,
        }
    }

    pub(super) async fn operations(&mut self, count: usize) {
        for _ in 0..count {
            self.operation().await;
        }
    }

    fn fact(&self, number: u64) -> String {
        format!("fact{}n{number}", self.number)
    }

    fn document(&self, number: u64) -> String {
        format!("manual-{}-{number}", self.number)
    }

    async fn operation(&mut self) {
        let (name, number) = (NAMES[self.of], self.dice.below(u64::try_from(DOCUMENTS).unwrap()));
        let document = self.document(number);
        let of_tenant = format!("clientId={name}");
        match self.dice.below(100) {
            0..2 => self.upload(number).await,
            2..3 => self.delete(number).await,
            3..6 => self.chat("/chat").await,
            6..8 => self.chat("/chat/stream").await,
            8..11 => self.feedback().await,
            11..12 => self.thread().await,
            12..30 => self.search().await,
            30..42 => {
                self.with_secret("get /documents", &format!("/documents?{of_tenant}"), Value::Null)
                    .await;
            }
            42..56 => {
                let path = format!("/documents/{document}/status?{of_tenant}");
                self.with_secret("get /documents/{id}/status", &path, Value::Null).await;
            }
            56..66 => {
                let path = format!("/internal/client/{name}/config");
                self.with_secret("get /internal/client/{id}/config", &path, Value::Null)
                    .await;
            }
            66..76 => {
                let body = json!({ "apiKey": self.world.keys[self.of] });
                self.with_secret("post /internal/validate-client", "/internal/validate-client", body)
                    .await;
            }
            76..80 => {
                let body = json!({ "clientId": name, "texts": [WORDS[self.of]] });
                self.with_secret("post /embed", "/embed", body).await;
            }
            80..90 => self.graphs().await,
            _ => self.foreign(number).await,
        }
    }

    async fn with_secret(&self, operation: &str, path: &str, body: Value) {
        self.world.call(self.of, operation, path, true, &body).await;
    }

    async fn upload(&mut self, number: u64) {
        let (fact, word) = (self.next_fact, WORDS[self.of]);
        self.next_fact += 1;
        let text = format!("The {word} device of {} is repaired within two days.", self.fact(fact));
        let body = upload_body(NAMES[self.of], &self.document(number), &text);
        let (status, told) = self
            .world
            .call(self.of, "post /process-document", "/process-document", true, &body)
            .await;
        assert!(status == StatusCode::OK && told.contains("\"success\":true"), "{told}");
        let place = usize::try_from(number).unwrap();
        self.gone.extend(self.facts[place].replace(fact));
        self.is_found(fact, true).await;
        self.nothing_gone_is_told().await;
    }

    async fn delete(&mut self, number: u64) {
        let place = usize::try_from(number).unwrap();
        let Some(fact) = self.facts[place] else { return };
        // Asked before, so that an answer is kept in every cache there is.
        self.is_found(fact, true).await;
        let path = format!("/documents/{}?clientId={}", self.document(number), NAMES[self.of]);
        let (status, told) = self
            .world
            .call(self.of, "delete /documents/{id}", &path, true, &Value::Null)
            .await;
        assert_eq!(status, StatusCode::OK, "{told}");
        self.facts[place] = None;
        self.gone.push(fact);
        self.is_found(fact, false).await;
        self.nothing_gone_is_told().await;
    }

    async fn found(&self, fact: u64) -> String {
        let tenant = TenantId::authenticated(NAMES[self.of]).unwrap();
        let query = SearchQuery {
            text: format!("device of {}", self.fact(fact)),
            dense: None,
            limit: 10,
        };
        let hits = self.world.vectors.search(&tenant, &query).await.unwrap();
        let text = serde_json::to_string(&hits).unwrap();
        assert_apart("a search", self.of, &text, &self.world.marks);
        text
    }

    async fn is_found(&self, fact: u64, there: bool) {
        let words = format!("{} is repaired", self.fact(fact));
        let found = self.found(fact).await;
        assert_eq!(found.contains(&words), there, "`{words}` in {found}");
    }

    async fn nothing_gone_is_told(&mut self) {
        let Some(fact) = self.gone.last().copied() else { return };
        let words = format!("{} is repaired", self.fact(fact));
        let told = self
            .say("/chat", &format!("is the device of {} repaired?", self.fact(fact)))
            .await;
        assert!(!told.contains(&words), "`{words}` is told although it is gone: {told}");
    }

    async fn search(&mut self) {
        let fact = self.dice.below(self.next_fact + 1);
        self.found(fact).await;
    }

    async fn say(&mut self, path: &str, message: &str) -> String {
        let body = json!({
            "message": message, "sessionId": format!("00000000-0000-4000-8000-00000000000{}", self.number),
            "metadata": { "customFields": { "note": WORDS[self.of] } },
        });
        let (status, told) = self
            .world
            .call(self.of, &format!("post {path}"), path, false, &body)
            .await;
        assert_eq!(status, StatusCode::OK, "{told}");
        told
    }

    async fn chat(&mut self, path: &str) {
        let word = WORDS[self.of];
        let number = self.dice.below(1_000);
        let message = match self.dice.below(4) {
            0 => "echo-prompt:".to_owned(),
            1 => format!("say:\"{word} {number}\""),
            2 => format!("when is the {word} device repaired? {number}"),
            _ => "when is the device repaired within two days?".to_owned(),
        };
        let told = self.say(path, &message).await;
        if path == "/chat" {
            let told: Value = serde_json::from_str(&told).unwrap();
            self.answer = told["traceId"].as_str().map(ToOwned::to_owned);
        }
    }

    async fn feedback(&mut self) {
        let Some(trace) = self.answer.clone() else { return };
        let body = json!({ "traceId": trace, "rating": "up", "comment": WORDS[self.of] });
        let (status, told) = self
            .world
            .call(self.of, "post /feedback", "/feedback", false, &body)
            .await;
        assert_eq!(status, StatusCode::OK, "{told}");
        // The other one knows no such answer, whoever calls for it.
        let body = json!({ "traceId": trace, "rating": "down", "comment": WORDS[1 - self.of] });
        let (status, _) = self
            .world
            .call(1 - self.of, "post /feedback", "/feedback", false, &body)
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }

    /// A thread of the chat graph: every route sees it for its tenant, and none for the other.
    async fn thread(&mut self) {
        let made = json!({ "metadata": { "of": WORDS[self.of] } });
        let (status, told) = self
            .world
            .call(self.of, "post /threads", "/threads", false, &made)
            .await;
        assert!(status.is_success(), "{told}");
        let thread: Value = serde_json::from_str(&told).unwrap();
        let path = format!("/threads/{}", thread["thread_id"].as_str().unwrap());
        let input = json!({
            "question": format!("when is the {} device repaired?", WORDS[self.of]), "session": "s",
            "asked_at": "2026-01-01T00:00:00Z",
        });
        let run = json!({ "assistant_id": "widget_chat", "input": input });
        for way in ["wait", "stream"] {
            let (operation, path) = (format!("post /threads/{{id}}/runs/{way}"), format!("{path}/runs/{way}"));
            self.world.call(self.of, &operation, &path, false, &run).await;
        }
        let (_, state) = self
            .world
            .call(
                self.of,
                "get /threads/{id}/state",
                &format!("{path}/state"),
                false,
                &Value::Null,
            )
            .await;
        let state: Value = serde_json::from_str(&state).unwrap_or_default();
        let checkpoint = state["checkpoint_id"].as_str().unwrap_or("none");
        for (operation, more, body) in [
            ("get /threads/{id}", String::new(), Value::Null),
            ("get /threads/{id}/state", "/state".to_owned(), Value::Null),
            ("post /threads/{id}/state", "/state".to_owned(), json!({ "values": {} })),
            (
                "post /threads/{id}/state/checkpoint",
                "/state/checkpoint".to_owned(),
                json!({ "checkpoint": { "checkpoint_id": checkpoint } }),
            ),
            (
                "get /threads/{id}/state/{checkpoint}",
                format!("/state/{checkpoint}"),
                Value::Null,
            ),
            ("get /threads/{id}/history", "/history".to_owned(), Value::Null),
            ("post /threads/{id}/history", "/history".to_owned(), json!({})),
        ] {
            let path = format!("{path}{more}");
            self.world.call(self.of, operation, &path, false, &body).await;
            let (status, told) = self.world.call(1 - self.of, operation, &path, false, &body).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{operation}: {told}");
        }
    }

    async fn graphs(&mut self) {
        let (operation, path) = [
            ("post /assistants/search", "/assistants/search"),
            ("post /assistants/count", "/assistants/count"),
            ("get /assistants/{id}", "/assistants/widget_chat"),
            ("get /assistants/{id}/graph", "/assistants/widget_chat/graph"),
            ("get /assistants/{id}/schemas", "/assistants/widget_chat/schemas"),
        ][usize::try_from(self.dice.below(5)).unwrap()];
        let body = if operation.starts_with("post") {
            json!({})
        } else {
            Value::Null
        };
        self.world.call(self.of, operation, path, false, &body).await;
    }

    /// A call with the own key that names the other tenant is refused.
    async fn foreign(&mut self, number: u64) {
        let other = NAMES[1 - self.of];
        let body = json!({ "clientId": other, "message": "hello?", "sessionId": Uuid::from_u128(7) });
        let (status, _) = self.world.call(self.of, "post /chat", "/chat", false, &body).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let path = format!("/documents/{}/status?clientId={other}", self.document(number));
        let (status, _) = self
            .world
            .call(self.of, "get /documents/{id}/status", &path, false, &Value::Null)
            .await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "no public key opens documents");
    }
}
