//! Fields marked `secret`: nodes and the store have them, and nobody is shown them.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::BTreeSet,
    fmt::Write,
    future::{pending, ready},
    num::NonZeroU32,
    sync::Arc,
};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{
    Append, Ask, Checkpointer, Context, Difference, END, Event, Extra, Failed, FanOutPolicy, FromState, Graph,
    GraphBuilder, Inside, InsideKind, Memory, NodeError, Outcome, Policy, ReaderGone, Recording, Retry, Run, RunEvent,
    SECRET, START, Selection, State, Update, View,
    checkpoint::{At, Page},
    dynamic::{Channels, DynamicBuilder, JsonInput, JsonUpdate, Merge},
    events,
};
use support::threads::thread;

/// Stands in every secret field of these tests, and in nothing that leaves.
const CANARY: &str = "canary-7f3d";

#[derive(State, Clone, Serialize, Deserialize)]
#[state(event = String)]
#[serde(rename_all = "camelCase")]
struct Vault {
    #[state(input)]
    name: String,
    #[state(input, secret)]
    api_key: String,
    #[state(secret, reducer = Append)]
    #[serde(rename = "pass-words")]
    passwords: Vec<String>,
    #[state(secret)]
    lease: Option<Lease>,
    #[state(reducer = Append)]
    log: Vec<usize>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Lease {
    token: String,
}

#[derive(View)]
#[view(of = Vault)]
struct Login {
    name: String,
    #[view(secret)]
    api_key: String,
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

fn input() -> VaultInput {
    VaultInput::new("acme", CANARY)
}

fn secrets() -> VaultUpdate {
    let token = format!("{CANARY}-lease");
    Vault::update()
        .api_key(format!("{CANARY}-next"))
        .passwords([CANARY.to_owned()])
        .lease(Some(Lease { token }))
}

/// A node that writes every secret field, and how long the key was that it was given.
fn keep(g: &mut GraphBuilder<Vault>) -> stepgraph::NodeId<Vault> {
    g.node("keep", |login: Login| {
        assert!(login.api_key.starts_with(CANARY) && !login.name.is_empty());
        ready(Ok(secrets().log([login.api_key.len()])))
    })
}

type Wire = fn(&mut GraphBuilder<Vault>, stepgraph::NodeId<Vault>);

fn graph(name: &'static str, wire: Wire) -> Graph<Vault> {
    let mut g = Graph::<Vault>::builder(name);
    let keep = keep(&mut g);
    g.edge(START, keep);
    wire(&mut g, keep);
    g.build().unwrap().checkpointer(Memory::new())
}

fn plain() -> Graph<Vault> {
    graph("plain", |g, keep| {
        g.edge(keep, END);
    })
}

/// What the graph inside is given: the secret as well.
struct Given(String);

impl FromState<Vault> for Given {
    fn from_state(vault: &Arc<Vault>) -> Self {
        Self(vault.api_key.clone())
    }
}

impl From<Given> for VaultInput {
    fn from(given: Given) -> Self {
        Self::new("inside", given.0)
    }
}

impl From<Given> for VaultUpdate {
    fn from(given: Given) -> Self {
        Vault::update().api_key(given.0)
    }
}

/// Everything that an event holds, in each way in which it can leave.
fn told(event: Event<Vault>, names: &mut BTreeSet<&'static str>) -> String {
    let mut text = format!("{event:?}");
    match &event.kind {
        stepgraph::EventKind::Update { update, .. } => {
            text += &serde_json::to_string(update).unwrap();
            write!(text, "{update:?}").unwrap();
        }
        stepgraph::EventKind::Values { state, .. } | stepgraph::EventKind::Saved { state: Some(state), .. } => {
            text += &serde_json::to_string(&**state).unwrap();
            write!(text, "{state:?}").unwrap();
        }
        _ => {}
    }
    if !event.path.is_empty() {
        names.insert("inside");
    }
    match event.kind.into_json().unwrap() {
        Inside::Custom { node, event } => {
            names.insert("custom");
            write!(text, "{node} {event}").unwrap();
        }
        Inside::Kind(kind) => {
            names.insert(kind.name());
            if let InsideKind::Saved { state: Some(state), .. } | InsideKind::Values { state, .. } = &kind {
                assert_eq!(state["apiKey"], SECRET);
                assert_eq!(state["pass-words"], SECRET);
                assert_eq!(state["lease"], SECRET);
            }
            write!(text, "{kind:?}").unwrap();
        }
    }
    text
}

async fn tell(run: Run<Vault>, names: &mut BTreeSet<&'static str>) -> String {
    let extras = [Extra::Values, Extra::Checkpoints, Extra::Payloads, Extra::Inside];
    let mut stream = run.stream_with(extras);
    let mut text = String::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(RunEvent::Event(event)) => text += &told(event, names),
            Ok(other) => write!(text, "{other:?}").unwrap(),
            Err(error) => write!(text, "{error} {error:?}").unwrap(),
        }
    }
    text
}

/// A graph for each thing that can happen in a run.
fn wires() -> [(&'static str, Wire); 6] {
    [
        ("custom", |g, keep| {
            let speak = g.node("speak", |_: Arc<Vault>, ctx: Context<String>| async move {
                ctx.emit("hello".to_owned()).await;
                Ok(())
            });
            g.edge(keep, speak).edge(speak, END);
        }),
        ("handed", |g, keep| {
            let down = || ready(Err::<VaultUpdate, _>(NodeError::retryable("down")));
            let flaky = g.node("flaky", move |_: Arc<Vault>| down());
            g.policy(flaky, Policy::default().retry(twice()));
            let recover = g.handler("recover", |_: Failed<Arc<Vault>>| ready(Ok(secrets())));
            g.edge(keep, flaky).edge(flaky, END);
            g.on_error(flaky, recover).edge(recover, END);
        }),
        ("failed", |g, keep| {
            let broken = g.node("broken", |_: Arc<Vault>| {
                ready(Err::<VaultUpdate, _>(NodeError::terminal("broken")))
            });
            g.edge(keep, broken).edge(broken, END);
        }),
        ("race", |g, keep| {
            let quick = g.node("quick", |_: Arc<Vault>| ready(Ok(Vault::update().log([1]))));
            let slow = g.node("slow", |_: Arc<Vault>| pending::<Result<VaultUpdate, NodeError>>());
            let after = g.node("after", |_: Arc<Vault>| ready(Ok(secrets())));
            g.edge(keep, quick).edge(keep, slow);
            g.race([quick, slow], after);
            g.edge(after, END);
        }),
        ("asks", |g, keep| {
            let ask = g.node("ask", |_: Arc<Vault>, ctx: Context<String>| async move {
                let _sure = ctx.ask(Sure)?;
                Ok(())
            });
            let beside = g.node("beside", |_: Arc<Vault>| ready(Ok(secrets())));
            g.edge(keep, ask).edge(ask, END).edge(keep, beside).edge(beside, END);
        }),
        ("nested", |g, keep| {
            let host = g.node("host", plain().as_node::<Given, Given>());
            g.edge(keep, host).edge(host, END);
        }),
    ]
}

fn twice() -> Retry {
    Retry::attempts(NonZeroU32::new(2).unwrap())
}

#[tokio::test(start_paused = true)]
async fn no_event_of_any_kind_tells_a_secret() {
    let (mut names, mut text) = (BTreeSet::new(), String::new());
    for (name, wire) in wires() {
        let graph = graph(name, wire);
        text += &tell(graph.run(&thread(name), input()), &mut names).await;
        let kept = graph.state(&thread(name), At::Head).await.unwrap().unwrap();
        assert!(kept.state.api_key.starts_with(CANARY), "the store has it");
        write!(text, "{kept:?}{:?}", kept.state.shown().unwrap()).unwrap();
    }
    let run = plain().run(&thread("paused"), input());
    text += &tell(run.stop_after(["keep"]), &mut names).await;
    let all = [
        "asked",
        "cancelled",
        "custom",
        "failed",
        "handed",
        "inside",
        "paused",
        "retry",
        "saved",
        "step",
        "update",
        "values",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), all);
    assert!(text.contains("beside") && text.contains("inside"), "{text}");
    assert!(!text.contains(CANARY), "{text}");
}

#[tokio::test]
async fn an_update_shows_which_secret_fields_it_writes() {
    let update = secrets().overwrite_passwords(vec![CANARY.to_owned()]).log([3_usize]);
    let shown = update.shown().unwrap();
    assert_eq!(
        shown,
        json!({"api_key": SECRET, "passwords": SECRET, "overwrite_passwords": SECRET, "lease": SECRET, "log": [3]})
    );
    assert!(!format!("{update:?}{:?}", input()).contains(CANARY));
    let touched = update.touched(Vault::fields(&()));
    let mut hidden = update;
    hidden.hide(Vault::fields(&()));
    assert_eq!(hidden.touched(Vault::fields(&())), touched);
    assert!(!serde_json::to_string(&hidden).unwrap().contains(CANARY));
}

#[tokio::test]
async fn the_run_that_was_called_gives_its_secrets_back_and_a_new_process_goes_on_with_them() {
    let store = Arc::new(Memory::new());
    let graph = plain().shared_checkpointer(store.clone());
    let done = graph.run(&thread("t"), input()).await.unwrap().done().unwrap();
    assert_eq!(done.api_key, format!("{CANARY}-next"));
    let debug = format!("{done:?} {:?}", Outcome::Done(done.clone()));
    assert!(
        debug.contains("acme") && debug.contains(SECRET) && !debug.contains(CANARY),
        "{debug}"
    );
    let again = plain().shared_checkpointer(store);
    let done = again.run(&thread("t"), input()).await.unwrap().done().unwrap();
    assert_eq!(done.passwords.len(), 2);
    let selection = Selection::all().fields(["api_key", "name"]);
    let page = again.select(&thread("t"), &selection, Page::default()).await.unwrap();
    assert!(page.selected.len() > 2);
    for at in page.selected {
        assert_eq!(
            (&at.fields["api_key"], &at.fields["name"]),
            (&json!(SECRET), &json!("acme"))
        );
    }
}

#[tokio::test]
async fn a_replay_tells_that_a_secret_differs_and_not_what_it_is() {
    let store = Arc::new(Memory::new());
    let recorded = plain().shared_checkpointer(store.clone()).recording(Recording::Calls);
    recorded.run(&thread("t"), input()).await.unwrap();
    let mut g = Graph::<Vault>::builder("plain");
    let keep = g.node("keep", |_: Arc<Vault>| {
        ready(Ok(Vault::update().api_key(format!("{CANARY}-other")).log([11_usize])))
    });
    g.edge(START, keep).edge(keep, END);
    let today = g.build().unwrap().shared_checkpointer(store);
    let replayed = today.replay(&thread("t")).bodies().await.unwrap();
    let divergence = replayed.divergence.unwrap();
    assert!(
        matches!(divergence.difference, Difference::Output { .. }),
        "{divergence}"
    );
    let text = format!("{divergence} {divergence:?}");
    assert!(text.contains(SECRET) && !text.contains(CANARY), "{text}");
}

#[derive(State, Clone, Serialize, Deserialize)]
#[serde(rename = "Vault")]
struct Numbered {
    #[state(input, secret)]
    api_key: u64,
    #[state(secret, input)]
    pin: Option<u64>,
}

#[test]
fn what_cannot_be_read_as_a_secret_is_not_told_either() {
    #[derive(State, Clone, Serialize, Deserialize)]
    struct Worded {
        #[state(input)]
        api_key: String,
        #[state(input)]
        pin: Option<u64>,
    }
    let stored = Worded::start(&(), WordedInput::new(CANARY, None)).encode().unwrap();
    let error = Numbered::decode(&(), &[&stored]).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`api_key`") && !error.contains(CANARY), "{error}");
    let body = json!({"api_key": CANARY});
    for error in [
        serde_json::from_value::<NumberedInput>(body.clone())
            .map(|_| ())
            .unwrap_err(),
        serde_json::from_value::<NumberedUpdate>(body).map(|_| ()).unwrap_err(),
    ] {
        assert!(!error.to_string().contains(CANARY), "{error}");
    }
    let read: NumberedInput = serde_json::from_value(json!({"api_key": 1})).unwrap();
    assert_eq!(read.pin, None, "an option may be left out, secret or not");
    assert!(serde_json::from_value::<NumberedInput>(json!({"pin": 1})).is_err());
}

#[tokio::test]
async fn channels_can_be_secret_as_well() {
    let channels = Channels::new([("key", Merge::Last), ("seen", Merge::Add)]).unwrap();
    let mut g = DynamicBuilder::new("channels", channels.secret(["key"]).unwrap());
    g.node("keep", |given, _| async move {
        let known = given.get("key") == Some(&json!(CANARY));
        Ok(JsonUpdate::new()
            .overwrite("key", json!({"next": CANARY}))
            .set("seen", json!(u8::from(known)))
            .into())
    });
    g.edge("START", "keep").edge("keep", "END");
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let begun = JsonInput::new().set("key", json!(CANARY));
    let mut stream = graph
        .run(&thread("t"), begun)
        .stream_with([Extra::Values, Extra::Checkpoints]);
    let (mut text, mut last) = (String::new(), None);
    while let Some(item) = stream.next().await {
        match item.unwrap() {
            RunEvent::Event(event) => write!(text, "{:?}", event.kind.into_json()).unwrap(),
            RunEvent::Ended(outcome) => {
                write!(text, "{outcome:?}").unwrap();
                last = outcome.done();
            }
            _ => {}
        }
    }
    let last = last.unwrap();
    assert!(text.contains(SECRET) && !text.contains(CANARY), "{text}");
    assert_eq!(
        (last.get("seen"), last.get("key")),
        (Some(&json!(1)), Some(&json!({"next": CANARY})))
    );
    assert_eq!(last.shown().unwrap(), json!({"key": SECRET, "seen": 1}));
    assert!(matches!(last.shown().unwrap(), Value::Object(_)));
}

#[derive(Debug, thiserror::Error)]
#[error("connect to postgres://app:{CANARY}@db: refused")]
struct Refused(#[source] NodeSource);

#[derive(Debug, thiserror::Error)]
#[error("sent `Authorization: Bearer {CANARY}`")]
struct NodeSource;

/// What is kept of a thread, in each form in which a store has it.
async fn kept(store: &Memory, name: &str) -> String {
    let mut text = String::new();
    let checkpoint = store.get(&thread(name), At::Head).await.unwrap().unwrap();
    write!(text, "{:?}", checkpoint.run).unwrap();
    for record in checkpoint.records {
        write!(text, "{record:?} {}", String::from_utf8_lossy(&record.body)).unwrap();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn what_an_error_tells_of_a_secret_is_neither_kept_nor_told() {
    let fails: Wire = |g, keep| {
        let node = g.node("broken", |_: Arc<Vault>| {
            ready(Err::<VaultUpdate, _>(NodeError::retryable(Refused(NodeSource))))
        });
        g.policy(node, Policy::default().retry(twice()));
        g.edge(keep, node).edge(node, END);
    };
    let handled: Wire = |g, keep| {
        let node = g.node("broken", |_: Arc<Vault>| {
            ready(Err::<VaultUpdate, _>(NodeError::terminal(Refused(NodeSource))))
        });
        let tell = g.handler("tell", |failed: Failed<Arc<Vault>>| {
            let failure = failed.failure();
            assert!(failure.message.contains("postgres://app:[secret]@db"), "{failure}");
            assert!(failure.sources[0].contains("Bearer [secret]"), "{failure:?}");
            ready(Err::<VaultUpdate, _>(NodeError::terminal(Refused(NodeSource))))
        });
        g.edge(keep, node).edge(node, END);
        g.on_error(node, tell).edge(tell, END);
    };
    let items: Wire = |g, keep| {
        let work = g.worker("work", |_: u64| {
            ready(Err::<VaultUpdate, _>(NodeError::terminal(Refused(NodeSource))))
        });
        g.fan_out(keep, work, |_| vec![1]);
        g.fan_out_policy(
            work,
            FanOutPolicy::collect(|failure| {
                assert!(failure.message.contains(SECRET) && !failure.message.contains(CANARY));
                Vault::update().log([failure.message.len()])
            }),
        );
        g.edge(work, END);
    };
    for (name, wire) in [("fails", fails), ("handled", handled), ("items", items)] {
        let store = Arc::new(Memory::new());
        let graph = graph(name, wire).shared_checkpointer(store.clone());
        let (sender, mut reader) = events(100, ReaderGone::Finish);
        let ended = graph.run(&thread(name), input()).events(sender).await;
        let mut text = kept(&store, name).await;
        while let Some(event) = reader.next().await {
            write!(text, "{:?}", event.kind.into_json()).unwrap();
        }
        let state = graph.state(&thread(name), At::Head).await.unwrap().unwrap();
        write!(text, "{:?} {:?}", state.tasks, state.run).unwrap();
        assert!(text.contains("postgres://app:[secret]@db"), "{name}: {text}");
        assert!(!text.contains(CANARY), "{name}: {text}");
        // Who has called the run is given the error itself.
        let own = ended.err().map(|error| error.node_error::<Refused>().is_some());
        assert_eq!(own, (name != "items").then_some(true));
    }
}
