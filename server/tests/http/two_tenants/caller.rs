//! One who calls for a tenant, and what each of its operations must show.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    NAMES, WORDS, assert_apart,
    world::{Call, World},
};
use crate::house::upload_body;

/// Documents of each caller.
const DOCUMENTS: usize = 3;
/// Names of each caller's requests: few, so that most are given again.
const REQUEST_NAMES: u64 = 20;

/// A checkpoint that no thread has.
const NO_CHECKPOINT: &str = "00000000-0000-0000-0000-000000000000";

/// Pseudorandom numbers from a seed that a failure can be repeated with.
struct Dice(u64);

impl Dice {
    /// One of its own for each caller.
    fn of(seed: u64, of: usize, number: usize) -> Self {
        let caller = u64::try_from(2 * number + of).unwrap() + 1;
        let mixed = (seed << 8 | caller).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Zero would stay zero for ever.
        Self(mixed.max(1))
    }

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
    pub(super) fn new(world: &'a World, of: usize, number: usize, seed: u64) -> Self {
        Self {
            world,
            of,
            number,
            dice: Dice::of(seed, of, number),
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

    fn session(&self) -> String {
        format!("00000000-0000-4000-8000-00000000000{}", self.number)
    }

    async fn operation(&mut self) {
        let (name, number) = (NAMES[self.of], self.dice.below(u64::try_from(DOCUMENTS).unwrap()));
        let document = self.document(number);
        match self.dice.below(100) {
            0..2 => self.upload(number).await,
            2..3 => self.delete(number).await,
            3..6 => self.chat("/chat").await,
            6..8 => self.chat("/chat/stream").await,
            8..11 => self.feedback().await,
            11..12 => self.thread().await,
            12..14 => self.named().await,
            14..15 => self.returning().await,
            15..16 => self.thread_of_both().await,
            16..30 => self.search().await,
            30..42 => self.list().await,
            42..56 => {
                let path = format!("/documents/{document}/status?clientId={name}");
                self.with_secret("get /documents/{id}/status", &path, Value::Null).await;
            }
            56..66 => {
                let path = format!("/internal/client/{name}/config");
                self.with_secret("get /internal/client/{id}/config", &path, Value::Null)
                    .await;
            }
            66..76 => {
                let body = json!({ "apiKey": self.world.key(self.of) });
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

    async fn with_secret(&self, operation: &str, path: &str, body: Value) -> (StatusCode, String) {
        let call = Call {
            operation,
            path,
            secret: true,
            body,
            ..Call::default()
        };
        self.world.call(self.of, call).await
    }

    /// With the key of this tenant.
    async fn with_key(&self, of: usize, operation: &str, path: &str, body: Value) -> (StatusCode, String) {
        let call = Call {
            operation,
            path,
            body,
            ..Call::default()
        };
        self.world.call(of, call).await
    }

    async fn upload(&mut self, number: u64) {
        let (fact, word) = (self.next_fact, WORDS[self.of]);
        self.next_fact += 1;
        let text = format!("The {word} device of {} is repaired within two days.", self.fact(fact));
        let body = upload_body(NAMES[self.of], &self.document(number), &text);
        let (status, told) = self
            .with_secret("post /process-document", "/process-document", body)
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
        let (status, told) = self.with_secret("delete /documents/{id}", &path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{told}");
        self.facts[place] = None;
        self.gone.push(fact);
        self.is_found(fact, false).await;
        self.nothing_gone_is_told().await;
    }

    async fn found(&self, fact: u64) -> String {
        let hits = self
            .world
            .search(self.of, &format!("device of {}", self.fact(fact)))
            .await;
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
            .say("/chat", &format!("is the device of {} repaired?", self.fact(fact)), &[])
            .await;
        assert!(!told.contains(&words), "`{words}` is told although it is gone: {told}");
    }

    async fn search(&mut self) {
        let fact = self.dice.below(self.next_fact + 1);
        self.found(fact).await;
    }

    /// Page by page; the place to go on that one is told is no place of the other's.
    async fn list(&mut self) {
        let path = format!("/documents?limit=1&clientId={}", NAMES[self.of]);
        let (_, told) = self.with_secret("get /documents", &path, Value::Null).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        let Some(cursor) = told["nextCursor"].as_str() else {
            return;
        };
        for (of, name) in NAMES.iter().enumerate() {
            let path = format!("/documents?clientId={name}&cursor={cursor}");
            let call = Call {
                operation: "get /documents",
                path: &path,
                secret: true,
                ..Call::default()
            };
            self.world.call(of, call).await;
        }
    }

    async fn send(&self, of: usize, path: &str, message: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let body = json!({
            "message": message, "sessionId": self.session(), "metadata": { "customFields": { "note": WORDS[of] } },
        });
        let (route, _) = path.split_once('?').unwrap_or((path, ""));
        let call = Call {
            operation: &format!("post {route}"),
            path,
            headers,
            body,
            ..Call::default()
        };
        self.world.call(of, call).await
    }

    async fn say(&self, path: &str, message: &str, headers: &[(&str, &str)]) -> String {
        let (status, told) = self.send(self.of, path, message, headers).await;
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
        let told = self.say(path, &message, &[]).await;
        if path == "/chat" {
            let told: Value = serde_json::from_str(&told).unwrap();
            self.answer = told["traceId"].as_str().map(ToOwned::to_owned);
        }
    }

    /// Requests of the same names, in the same sessions: each tenant is answered its own.
    async fn named(&mut self) {
        let name = format!("request-{}", self.dice.below(REQUEST_NAMES));
        let message = format!("say:\"{} {}\"", WORDS[self.of], self.dice.below(1_000));
        let header = [("idempotency-key", name.as_str())];
        let first = self.say("/chat", &message, &header).await;
        let again = self.say("/chat", "say:\"something else\"", &header).await;
        let run = |told: &str| serde_json::from_str::<Value>(told).unwrap()["traceId"].clone();
        assert_eq!(run(&first), run(&again));
    }

    /// One who comes back reads on; another tenant, in the same session with the same message, does not.
    async fn returning(&mut self) {
        let (path, message) = (
            "/chat/stream?dialect=json",
            format!("when is the device repaired? {}", self.dice.below(1_000_000)),
        );
        let told = self.say(path, &message, &[]).await;
        let id = told.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        let header = [("last-event-id", id)];
        let again = self.say(path, &message, &header).await;
        assert!(again.contains("event: done"), "{again}");
        let (status, told) = self.send(1 - self.of, path, &message, &header).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{told}");
    }

    async fn feedback(&mut self) {
        let Some(trace) = self.answer.clone() else { return };
        let body = |rating, of: usize| json!({ "traceId": trace, "rating": rating, "comment": WORDS[of] });
        let (status, told) = self
            .with_key(self.of, "post /feedback", "/feedback", body("up", self.of))
            .await;
        assert_eq!(status, StatusCode::OK, "{told}");
        // The other one knows no such answer, whoever calls for it.
        let other = 1 - self.of;
        let (status, _) = self
            .with_key(other, "post /feedback", "/feedback", body("down", other))
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }

    fn run(&self) -> Value {
        let input = json!({
            "question": format!("when is the {} device repaired?", WORDS[self.of]), "session": "s",
            "asked_at": "2026-01-01T00:00:00Z",
        });
        json!({ "assistant_id": "widget_chat", "input": input })
    }

    /// A thread of the chat graph: every route sees it for its tenant, and none for the other.
    async fn thread(&mut self) {
        let made = json!({ "metadata": { "of": WORDS[self.of] } });
        let (status, told) = self.with_key(self.of, "post /threads", "/threads", made).await;
        assert!(status.is_success(), "{told}");
        let thread: Value = serde_json::from_str(&told).unwrap();
        let path = format!("/threads/{}", thread["thread_id"].as_str().unwrap());
        for way in ["wait", "stream"] {
            let (operation, path) = (format!("post /threads/{{id}}/runs/{way}"), format!("{path}/runs/{way}"));
            let (status, told) = self.with_key(1 - self.of, &operation, &path, self.run()).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{told}");
            self.with_key(self.of, &operation, &path, self.run()).await;
        }
        let state = format!("{path}/state");
        let (_, state) = self
            .with_key(self.of, "get /threads/{id}/state", &state, Value::Null)
            .await;
        let state: Value = serde_json::from_str(&state).unwrap_or_default();
        // Above its limit a tenant gets no run, and its thread has none.
        let checkpoint = state["checkpoint_id"].as_str().unwrap_or(NO_CHECKPOINT);
        for (operation, more, body) in reads(checkpoint) {
            let path = format!("{path}{more}");
            self.with_key(self.of, operation, &path, body.clone()).await;
            let (status, told) = self.with_key(1 - self.of, operation, &path, body).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{operation}: {told}");
        }
    }

    /// A thread of a name that the other's has, too: each is its own.
    async fn thread_of_both(&mut self) {
        let id = Uuid::from_u128(u128::from(self.dice.below(8)) + 1);
        let made = json!({ "thread_id": id, "if_exists": "do_nothing", "metadata": { "of": WORDS[self.of] } });
        let (status, told) = self.with_key(self.of, "post /threads", "/threads", made).await;
        assert!(status.is_success() && told.contains(WORDS[self.of]), "{told}");
        let path = format!("/threads/{id}/runs/wait");
        self.with_key(self.of, "post /threads/{id}/runs/wait", &path, self.run())
            .await;
        let path = format!("/threads/{id}/history");
        self.with_key(self.of, "get /threads/{id}/history", &path, Value::Null)
            .await;
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
        self.with_key(self.of, operation, path, body).await;
    }

    /// A call with the own key that names the other tenant is refused.
    async fn foreign(&mut self, number: u64) {
        let other = NAMES[1 - self.of];
        let body = json!({ "clientId": other, "message": "hello?", "sessionId": Uuid::from_u128(7) });
        let (status, _) = self.with_key(self.of, "post /chat", "/chat", body).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let path = format!("/documents/{}/status?clientId={other}", self.document(number));
        let (status, _) = self
            .with_key(self.of, "get /documents/{id}/status", &path, Value::Null)
            .await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "no public key opens documents");
    }
}

/// Every way to look at a thread, and one to write it.
fn reads(checkpoint: &str) -> [(&'static str, String, Value); 7] {
    let at = json!({ "checkpoint": { "checkpoint_id": checkpoint } });
    [
        ("get /threads/{id}", String::new(), Value::Null),
        ("get /threads/{id}/state", "/state".to_owned(), Value::Null),
        ("post /threads/{id}/state", "/state".to_owned(), json!({ "values": {} })),
        (
            "post /threads/{id}/state/checkpoint",
            "/state/checkpoint".to_owned(),
            at,
        ),
        (
            "get /threads/{id}/state/{checkpoint}",
            format!("/state/{checkpoint}"),
            Value::Null,
        ),
        ("get /threads/{id}/history", "/history".to_owned(), Value::Null),
        ("post /threads/{id}/history", "/history".to_owned(), json!({})),
    ]
}
