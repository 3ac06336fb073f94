//! Graphs to be served, and a server over them without a socket.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, StatusCode},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{Ask, BuildErrors, Checkpointer, Context, Memory, prelude::*};
use stepgraph_nodes::{service::embedded::SqliteRecords, trace::TraceParent};
use stepgraph_server::{FixedKeys, Heard, Serve, Server};
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use crate::house;

pub(crate) const ACME: &str = "key-of-acme";
pub(crate) const GLOBEX: &str = "key-of-globex";

#[derive(State, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[state(input_derive(JsonSchema))]
pub(crate) struct Counter {
    #[state(input, per_run, default = 0)]
    count: u64,
    #[state(input, default = 3)]
    limit: u64,
    #[state(reducer = Append)]
    trail: Vec<u64>,
}

#[derive(Route, Clone, Copy)]
enum Again {
    More,
    Enough,
}

pub(crate) fn counter() -> Result<Graph<Counter>, BuildErrors> {
    let mut g = Graph::<Counter>::builder("counter_loop");
    let inc = g.node("inc", |counter: Arc<Counter>| async move {
        let next = counter.count + 1;
        Ok(Counter::update().count(next).trail([next]))
    });
    let again = |counter: &Counter| {
        if counter.count < counter.limit {
            Again::More
        } else {
            Again::Enough
        }
    };
    g.edge(START, inc);
    g.branch(inc, again, |again| match again {
        Again::More => to(inc),
        Again::Enough => to(END),
    });
    g.build()
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Approval {
    #[state(input)]
    draft: String,
    #[state(per_run)]
    decision: Option<bool>,
    #[state(per_run)]
    published: Option<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve {
    question: &'static str,
    draft: String,
}

fn approval() -> Result<Graph<Approval>, BuildErrors> {
    let mut g = Graph::<Approval>::builder("approval");
    let write = g.node("write", |state: Arc<Approval>| async move {
        Ok(Approval::update().draft(format!("draft of {}", state.draft)))
    });
    let approve = g.node("approve", |state: Arc<Approval>, ctx: Context<()>| async move {
        let question = Approve {
            question: "approve?",
            draft: state.draft.clone(),
        };
        Ok(Approval::update().decision(ctx.ask(question)?))
    });
    let publish = g.node("publish", |state: Arc<Approval>| async move {
        Ok(Approval::update().published(format!("{} [{:?}]", state.draft, state.decision)))
    });
    g.edge(START, write)
        .edge(write, approve)
        .edge(approve, publish)
        .edge(publish, END);
    g.build()
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Text {
    #[state(input)]
    text: String,
    #[state(reducer = Append)]
    trail: Vec<String>,
}

fn nested() -> Result<Graph<Text>, BuildErrors> {
    let mut inner = Graph::<Text>::builder("child");
    let c1 = inner.node("c1", |state: Arc<Text>| async move {
        Ok(Text::update()
            .text(format!("{}-child", state.text))
            .trail(["child".to_owned()]))
    });
    inner.edge(START, c1).edge(c1, END);
    let inner = inner.build()?;

    let mut g = Graph::<Text>::builder("nested");
    let before = g.node("before", |state: Arc<Text>| async move {
        Ok(Text::update()
            .text(format!("{}-before", state.text))
            .trail(["before".to_owned()]))
    });
    let child = g.node("child", inner.as_node::<Inner, Inner>());
    g.edge(START, before).edge(before, child).edge(child, END);
    g.build()
}

/// What the inner graph is given of the outer one, and gives back.
struct Inner(String);

impl FromState<Text> for Inner {
    fn from_state(state: &Arc<Text>) -> Self {
        Self(state.text.clone())
    }
}

impl From<Inner> for TextInput {
    fn from(inner: Inner) -> Self {
        Self { text: inner.0 }
    }
}

impl From<Inner> for TextUpdate {
    fn from(inner: Inner) -> Self {
        Text::update().text(inner.0)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("boom on purpose")]
struct Boom;

fn failing(name: &'static str) -> Result<Graph<Text>, BuildErrors> {
    let mut g = Graph::<Text>::builder(name);
    let boom = g.node("boom", |_: Arc<Text>| async move {
        Err::<TextUpdate, _>(NodeError::terminal(Boom))
    });
    g.edge(START, boom).edge(boom, END);
    g.build()
}

/// The state of a graph that is given a secret, keeps one that it made, and runs a graph inside on it.
#[derive(State, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[state(input_derive(JsonSchema))]
pub(crate) struct Vault {
    #[state(input)]
    name: String,
    #[state(input, secret, default = String::from("none yet"))]
    api_key: String,
    #[state(secret, reducer = Append)]
    old_keys: Vec<String>,
    #[state(input, secret, default = None)]
    pin: Option<u64>,
    #[state(reducer = Append)]
    lengths: Vec<usize>,
}

/// The key as the graph inside is given it, and as it gives it back.
struct Key(String);

impl FromState<Vault> for Key {
    fn from_state(vault: &Arc<Vault>) -> Self {
        Self(vault.api_key.clone())
    }
}

impl From<Key> for VaultInput {
    fn from(key: Key) -> Self {
        Self {
            api_key: key.0,
            ..Self::new("inside")
        }
    }
}

impl From<Key> for VaultUpdate {
    fn from(key: Key) -> Self {
        Vault::update().old_keys([key.0])
    }
}

pub(crate) fn vault() -> Result<Graph<Vault>, BuildErrors> {
    let turn = |vault: Arc<Vault>| async move {
        Ok(Vault::update()
            .old_keys([vault.api_key.clone()])
            .lengths([vault.api_key.len()]))
    };
    let mut inner = Graph::<Vault>::builder("inner_vault");
    let rotate = inner.node("rotate", turn);
    inner.edge(START, rotate).edge(rotate, END);
    let inner = inner.build()?;
    let mut g = Graph::<Vault>::builder("vault");
    let rotate = g.node("rotate", turn);
    let host = g.node("host", inner.as_node::<Key, Key>());
    let approve = g.node("approve", |_: Arc<Vault>, ctx: Context<()>| async move {
        let question = Approve {
            question: "approve?",
            draft: "a key".to_owned(),
        };
        ctx.ask(question)?;
        Ok(())
    });
    g.edge(START, rotate)
        .edge(rotate, host)
        .edge(host, approve)
        .edge(approve, END);
    g.build()
}

/// What the echo says while it speaks.
pub(crate) enum Spoken {
    Word(String),
    Note(&'static str),
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Spoken)]
pub(crate) struct Echo {
    #[state(input)]
    said: String,
    #[state(per_run)]
    answer: Option<String>,
}

fn echo() -> Result<Serve<Echo>, BuildErrors> {
    let mut g = Graph::<Echo>::builder("echo");
    let reply = g.node("reply", |state: Arc<Echo>, ctx: Context<Spoken>| async move {
        ctx.emit(Spoken::Note("custom")).await;
        for word in ["echo: ", &state.said] {
            ctx.emit(Spoken::Word(word.to_owned())).await;
        }
        Ok(Echo::update().answer(format!("echo: {}", state.said)))
    });
    g.edge(START, reply).edge(reply, END);
    Ok(Serve::with_events(g.build()?, |spoken| match spoken {
        Spoken::Word(word) => Heard::Token(word),
        Spoken::Note(note) => Heard::Custom(json!({"note": note})),
    }))
}

/// A node that waits until it is let through, or until its run is cancelled.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) permits: Semaphore,
    /// The trace of each run, as the node sees it.
    pub(crate) traces: Mutex<Vec<Option<String>>>,
    pub(crate) begun: watch::Sender<usize>,
    pub(crate) ended: watch::Sender<usize>,
    pub(crate) cancelled: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(0),
            traces: Mutex::default(),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            cancelled: watch::Sender::new(0),
        }
    }
}

/// Counts a run as cancelled unless it was let through.
struct Entered(Arc<Gate>, bool);

impl Drop for Entered {
    fn drop(&mut self) {
        let counter = if self.1 { &self.0.ended } else { &self.0.cancelled };
        counter.send_modify(|count| *count += 1);
    }
}

fn gated(gate: Arc<Gate>) -> Result<Graph<Text>, BuildErrors> {
    let mut g = Graph::<Text>::builder("gated");
    let wait = g.node("wait", move |state: Arc<Text>, ctx: Context<()>| {
        let gate = Arc::clone(&gate);
        async move {
            let trace = ctx.provided::<TraceParent>().ok().map(ToString::to_string);
            gate.traces.lock().unwrap().push(trace);
            let mut entered = Entered(Arc::clone(&gate), false);
            gate.begun.send_modify(|count| *count += 1);
            let Ok(permit) = gate.permits.acquire().await else {
                return Err(NodeError::terminal("the gate is gone"));
            };
            permit.forget();
            entered.1 = true;
            Ok(Text::update().trail([state.text.clone()]))
        }
    });
    g.edge(START, wait).edge(wait, END);
    g.build()
}

pub(crate) async fn reaches(counter: &watch::Sender<usize>, count: usize) {
    counter.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
}

/// All of them served to two tenants.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) router: Router,
    pub(crate) gate: Arc<Gate>,
    folder: Arc<TempDir>,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The body of a call that must have gone well.
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// Status and code of a refusal, whose shape is checked on the way.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert!(
            body["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
            "{body}"
        );
        (
            self.status.as_u16(),
            body["code"].as_str().unwrap_or_default().to_owned(),
        )
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The events of a stream.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let event = |frame: &str| {
            let (name, data) = frame.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).ok()?))
        };
        self.text.split_terminator("\n\n").filter_map(event).collect()
    }
}

impl Served {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self::over(Memory::default(), folder).await
    }

    pub(crate) async fn over(store: impl Checkpointer, folder: TempDir) -> Self {
        let records = SqliteRecords::open(house::pool(&folder).await).await.unwrap();
        Self::with(store, records, Arc::new(folder))
    }

    /// Another server on the same files.
    pub(crate) fn again(&self, store: impl Checkpointer, records: SqliteRecords) -> Self {
        Self::with(store, records, Arc::clone(&self.folder))
    }

    fn with(store: impl Checkpointer, records: SqliteRecords, folder: Arc<TempDir>) -> Self {
        let gate = Arc::new(Gate::default());
        let server = Server::builder()
            .graph(Serve::new(counter().unwrap()).input_schema().state_schema())
            .graph(approval().unwrap())
            .graph(nested().unwrap())
            .graph(failing("failing").unwrap())
            .graph(Serve::new(failing("telling").unwrap()).show_errors())
            .graph(Serve::new(vault().unwrap()).input_schema().state_schema())
            .graph(echo().unwrap())
            .graph(gated(Arc::clone(&gate)).unwrap())
            .checkpointer(store)
            .threads(records)
            .authenticator(FixedKeys::new([("acme", ACME), ("globex", GLOBEX)]).unwrap())
            .allow_origin("https://studio.example")
            .build()
            .unwrap();
        let router = server.router();
        Self {
            server,
            router,
            gate,
            folder,
        }
    }

    pub(crate) async fn call(&self, key: &str, method: Method, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = house::request(method, path, &[("x-api-key", key)], body);
        self.send(request).await
    }

    pub(crate) async fn send(&self, request: axum::http::Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(ACME, Method::POST, path, &body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(ACME, Method::GET, path, &Value::Null).await
    }

    /// A new thread of acme's.
    pub(crate) async fn thread(&self) -> String {
        let thread = self.post("/threads", json!({})).await.ok();
        format!("/threads/{}", thread["thread_id"].as_str().unwrap())
    }

    pub(crate) async fn wait(&self, thread: &str, body: Value) -> Reply {
        self.post(&format!("{thread}/runs/wait"), body).await
    }

    pub(crate) async fn stream(&self, thread: &str, body: Value) -> Reply {
        self.post(&format!("{thread}/runs/stream"), body).await
    }
}
