//! Threads that an older version of the program has written: states that are migrated, graphs that have changed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod support {
    pub(crate) mod threads;
}

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Checkpointer, Context, END, EventKind, Graph, Memory, NodeError, Outcome, ReaderGone, RunError, START,
    State, StateError, Versions,
    checkpoint::{At, Page, RecordKind},
    events,
};
use support::threads::thread;

/// The state as it was at first.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(version = 1)]
struct ChatV1 {
    #[state(input)]
    query: String,
    #[state(reducer = Append)]
    notes: Vec<String>,
    count: u32,
}

/// `query` is now `question`.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(version = 2, from = ChatV1)]
struct ChatV2 {
    #[state(input)]
    question: String,
    #[state(reducer = Append)]
    notes: Vec<String>,
    count: u32,
}

/// A number has become a word, and there is a field more.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(version = 3, from = ChatV2)]
struct Chat {
    #[state(input)]
    question: String,
    #[state(reducer = Append)]
    notes: Vec<String>,
    count: String,
    language: Option<String>,
}

impl From<ChatV1> for ChatV2 {
    fn from(old: ChatV1) -> Self {
        Self {
            question: old.query,
            notes: old.notes,
            count: old.count,
        }
    }
}

impl From<ChatV1Update> for ChatV2Update {
    fn from(old: ChatV1Update) -> Self {
        let old = old.into_fields();
        ChatV2UpdateFields {
            question: old.query,
            notes: old.notes,
            overwrite_notes: old.overwrite_notes,
            count: old.count,
        }
        .into()
    }
}

impl From<ChatV2> for Chat {
    fn from(old: ChatV2) -> Self {
        Self {
            question: old.question,
            notes: old.notes,
            count: old.count.to_string(),
            language: None,
        }
    }
}

impl From<ChatV2Update> for ChatUpdate {
    fn from(old: ChatV2Update) -> Self {
        let old = old.into_fields();
        ChatUpdateFields {
            question: old.question,
            notes: old.notes,
            overwrite_notes: old.overwrite_notes,
            count: old.count.map(|count| count.to_string()),
            language: None,
        }
        .into()
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve {
    text: String,
}

type Store = Arc<Memory>;

fn store() -> Store {
    Arc::new(Memory::new())
}

/// How often a node has run.
type Count = Arc<AtomicUsize>;

/// START leads to `ask`, which asks, and `note`, which writes; then END. The same in every version of the state.
macro_rules! asking {
    ($state:ty, $store:expr, $ran:expr, $count:expr) => {{
        let mut g = Graph::<$state>::builder("chat");
        let ask = g.node("ask", |_: Arc<$state>, ctx: Context<()>| async move {
            let yes = ctx.ask(Approve { text: "go on?".into() })?;
            Ok(<$state>::update().notes([format!("approved: {yes}")]))
        });
        let ran: Count = Arc::clone($ran);
        let note = g.node("note", move |_: Arc<$state>| {
            ran.fetch_add(1, Ordering::SeqCst);
            async move { Ok(<$state>::update().notes(["noted".to_owned()]).count($count)) }
        });
        g.edge(START, ask).edge(START, note).edge(ask, END).edge(note, END);
        g.build()
            .unwrap()
            .shared_checkpointer(Arc::clone($store) as Arc<dyn Checkpointer>)
    }};
}

fn v1(store: &Store, ran: &Count) -> Graph<ChatV1> {
    asking!(ChatV1, store, ran, 7_u32)
}

fn v3(store: &Store, ran: &Count) -> Graph<Chat> {
    asking!(Chat, store, ran, "seven")
}

async fn wait_in_v1(store: &Store, ran: &Count) {
    let outcome = v1(store, ran)
        .run(&thread("t"), ChatV1Input::new("why?"))
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)));
}

fn migrated() -> Chat {
    Chat {
        question: "why?".into(),
        notes: vec!["noted".into()],
        count: "7".into(),
        language: None,
    }
}

#[tokio::test]
async fn a_waiting_thread_goes_on_with_its_state_and_kept_results_migrated_over_two_versions() {
    let (store, ran) = (store(), Count::default());
    wait_in_v1(&store, &ran).await;
    let graph = v3(&store, &ran);
    let head = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(head.state, migrated());
    let outcome = graph.resume(&thread("t")).answer::<Approve>(&true).await.unwrap();
    let notes = vec!["approved: true".to_owned(), "noted".to_owned()];
    assert_eq!(outcome.done().unwrap(), Chat { notes, ..migrated() });
    assert_eq!(ran.load(Ordering::SeqCst), 1, "what had finished does not run again");
}

#[tokio::test]
async fn reading_migrates_in_memory_alone() {
    let (store, ran) = (store(), Count::default());
    wait_in_v1(&store, &ran).await;
    let before = store.get(&thread("t"), At::Head).await.unwrap();
    let graph = v3(&store, &ran);
    graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    let entries = graph.history(&thread("t"), Page::default()).await.unwrap();
    let old = graph
        .state(&thread("t"), At::Seq(entries[0].seq))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(old.state.count, "0");
    assert_eq!(store.get(&thread("t"), At::Head).await.unwrap(), before);
}

#[tokio::test]
async fn the_first_checkpoint_after_a_migration_is_a_snapshot_of_the_new_form() {
    let (store, ran) = (store(), Count::default());
    wait_in_v1(&store, &ran).await;
    v3(&store, &ran)
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap();
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!((head.info.state_version, head.parts.len()), (3, 1));
    let parts: Vec<&[u8]> = head.parts.iter().map(AsRef::as_ref).collect();
    assert_eq!(Chat::decode(&(), &parts).unwrap().count, "7");
    // The next is a delta again.
    let graph = v3(&store, &ran);
    graph.run(&thread("t"), ChatInput::new("again?")).await.unwrap();
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(head.parts.len(), 2);
}

#[tokio::test]
async fn an_update_kept_in_the_new_form_under_an_old_head_is_read_as_such() {
    #[derive(Serialize, Ask)]
    #[ask(name = "second", answer = bool)]
    struct Second;
    macro_rules! two_questions {
        ($state:ty, $store:expr, $value:expr) => {{
            let mut g = Graph::<$state>::builder("chat");
            let a = g.node("a", |_: Arc<$state>, ctx: Context<()>| async move {
                ctx.ask(Approve { text: String::new() })?;
                Ok(<$state>::update().count($value))
            });
            let b = g.node("b", |_: Arc<$state>, ctx: Context<()>| async move {
                ctx.ask(Second)?;
                Ok(<$state>::update().notes(["b".to_owned()]))
            });
            g.edge(START, a).edge(START, b).edge(a, END).edge(b, END);
            g.build()
                .unwrap()
                .shared_checkpointer(Arc::clone($store) as Arc<dyn Checkpointer>)
        }};
    }
    let store = store();
    let key = thread("t");
    two_questions!(ChatV1, &store, 1_u32)
        .run(&key, ChatV1Input::new("why?"))
        .await
        .unwrap();
    let new = two_questions!(Chat, &store, "one");
    let Outcome::Asked(open) = new.resume(&key).await.unwrap() else {
        panic!("it asks")
    };
    let id = |name: &str| open.iter().find(|question| question.name == name).unwrap().id.clone();
    let first = stepgraph::Answers::Many(vec![(id("approve"), true.into())]);
    let outcome = new.resume(&key).answers(first).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "the other question is still open");
    let head = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(head.info.state_version, 1);
    assert!(
        head.records
            .iter()
            .any(|record| record.kind == RecordKind::Output && record.task == "a")
    );
    let live = new.state(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(live.state.count, "one");
    let done = new.resume(&key).answer::<Second>(&true).await.unwrap().done().unwrap();
    assert_eq!((done.count.as_str(), done.notes), ("one", vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_newer_version_and_an_unknown_older_one_are_refused_by_both_numbers() {
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[state(version = 4)]
    struct Apart {
        #[state(input)]
        question: String,
    }
    let (store, ran) = (store(), Count::default());
    let v3 = v3(&store, &ran);
    v3.run(&thread("t"), ChatInput::new("why?")).await.unwrap();
    let older = v1(&store, &ran);
    for error in [
        older.state(&thread("t"), At::Head).await.unwrap_err(),
        older.resume(&thread("t")).answer::<Approve>(&true).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, RunError::State(StateError::Version { stored: 3, known: 1 })),
            "{error}"
        );
        assert_eq!(error.code(), "state::version");
        assert!(error.to_string().contains("newer"), "{error}");
    }
    let mut g = Graph::<Apart>::builder("chat");
    let ask = g.node("ask", |_: Arc<Apart>| async { Ok(()) });
    g.edge(START, ask).edge(ask, END);
    let apart = g
        .build()
        .unwrap()
        .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    let error = apart.state(&thread("t"), At::Head).await.unwrap_err();
    assert!(
        matches!(error, RunError::State(StateError::Version { stored: 3, known: 4 })),
        "{error}"
    );
    assert!(error.to_string().contains("#[state(from = ..)]"), "{error}");
}

#[tokio::test]
async fn a_stored_field_that_the_state_does_not_have_is_refused_by_its_name_and_so_is_one_of_another_type() {
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Renamed {
        #[state(input)]
        question: String,
        #[state(reducer = Append)]
        notes: Vec<String>,
        count: u32,
    }
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Retyped {
        #[state(input)]
        query: String,
        #[state(reducer = Append)]
        notes: Vec<String>,
        count: String,
    }
    let (store, ran) = (store(), Count::default());
    wait_in_v1(&store, &ran).await;
    let error = asking!(Renamed, &store, &ran, 7_u32)
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "state::decode");
    assert!(error.to_string().contains("`query`"), "{error}");
    let error = asking!(Retyped, &store, &ran, "7")
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "state::decode");
    assert!(error.to_string().contains("`count`"), "{error}");
}

/// START leads to one node of this name, which asks.
fn one(name: &'static str, store: &Store) -> Graph<Chat> {
    let mut g = Graph::<Chat>::builder("chat");
    let node = g.node(name, move |_: Arc<Chat>, ctx: Context<()>| async move {
        let yes = ctx.ask(Approve { text: "go on?".into() })?;
        ctx.emit(()).await;
        Ok(Chat::update().notes([format!("{name}: {yes}")]))
    });
    g.edge(START, node).edge(node, END);
    g.build()
        .unwrap()
        .shared_checkpointer(Arc::clone(store) as Arc<dyn Checkpointer>)
}

async fn wait_in(graph: &Graph<Chat>) {
    let outcome = graph.run(&thread("t"), ChatInput::new("why?")).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)));
}

/// Weakness 21 of the study.
#[tokio::test]
async fn a_node_renamed_under_a_waiting_thread_is_an_error_and_never_success() {
    for versions in [Versions::Latest, Versions::Refuse, Versions::Pin] {
        let store = store();
        wait_in(&one("ask", &store)).await;
        let before = store.get(&thread("t"), At::Head).await.unwrap();
        let graph = one("ask2", &store).versions(versions);
        let error = graph.resume(&thread("t")).answer::<Approve>(&true).await.unwrap_err();
        let code = if versions == Versions::Latest {
            "run::incompatible"
        } else {
            "run::other_version"
        };
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(
            store.get(&thread("t"), At::Head).await.unwrap(),
            before,
            "nothing is lost"
        );
        let done = one("ask", &store)
            .resume(&thread("t"))
            .answer::<Approve>(&true)
            .await
            .unwrap();
        assert_eq!(done.done().unwrap().notes, ["ask: true"]);
    }
}

/// The same node, and one more behind it.
fn longer(store: &Store) -> Graph<Chat> {
    let mut g = Graph::<Chat>::builder("chat");
    let ask = g.node("ask", |_: Arc<Chat>, ctx: Context<()>| async move {
        let yes = ctx.ask(Approve { text: "go on?".into() })?;
        Ok(Chat::update().notes([format!("longer: {yes}")]))
    });
    let more = g.node("more", |_: Arc<Chat>| async {
        Ok(Chat::update().notes(["more".to_owned()]))
    });
    g.edge(START, ask).edge(ask, more).edge(more, END);
    g.build()
        .unwrap()
        .shared_checkpointer(Arc::clone(store) as Arc<dyn Checkpointer>)
}

#[tokio::test]
async fn the_latest_version_goes_on_if_every_place_is_there() {
    let store = store();
    wait_in(&one("ask", &store)).await;
    let done = longer(&store)
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.notes, ["longer: true", "more"]);
}

#[tokio::test]
async fn a_thread_of_another_version_is_refused_by_both_fingerprints_until_nothing_of_it_is_left() {
    let store = store();
    let (old, new) = (one("ask", &store), longer(&store).versions(Versions::Refuse));
    wait_in(&old).await;
    for error in [
        new.resume(&thread("t")).answer::<Approve>(&true).await.unwrap_err(),
        new.update(&thread("t"), At::Head, Chat::update(), "ask")
            .await
            .unwrap_err(),
    ] {
        let RunError::OtherVersion { stored, here, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*stored, *here), (old.fingerprint(), new.fingerprint()));
        assert!(error.to_string().contains(&stored.to_string()) && error.to_string().contains(&here.to_string()));
    }
    let done = old.resume(&thread("t")).answer::<Approve>(&true).await.unwrap();
    assert!(done.done().is_some());
    let outcome = new.run(&thread("t"), ChatInput::new("again?")).await.unwrap();
    assert!(
        matches!(outcome, Outcome::Asked(_)),
        "a finished thread begins anew on the newer graph"
    );
    let done = new
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.notes.last().map(String::as_str), Some("more"));
}

#[tokio::test]
async fn a_pinned_thread_ends_on_the_version_it_began_on_and_tells_its_nodes_by_their_old_names() {
    let store = store();
    wait_in(&one("zeta", &store)).await;
    let graph = longer(&store)
        .versions(Versions::Pin)
        .with_older(one("other", &store))
        .with_older(one("zeta", &store));
    let (sender, mut reader) = events(64, ReaderGone::Finish);
    let run = graph.resume(&thread("t")).answer::<Approve>(&true).events(sender);
    let (outcome, told) = tokio::join!(async { run.await.unwrap() }, async {
        let mut told = Vec::new();
        while let Some(event) = reader.next().await {
            if let EventKind::Custom { node, .. } = event.kind {
                told.push(node);
            }
        }
        told
    });
    assert_eq!(outcome.done().unwrap().notes, ["zeta: true"]);
    assert_eq!(told, ["zeta"]);
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(head.info.fingerprint, one("zeta", &store).fingerprint());
    // New input begins on the newest.
    graph.run(&thread("t"), ChatInput::new("again?")).await.unwrap();
    let done = graph
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.notes.last().map(String::as_str), Some("more"));
}

#[tokio::test]
async fn a_pinned_thread_whose_version_is_gone_is_refused() {
    let store = store();
    wait_in(&one("ask", &store)).await;
    let graph = longer(&store).versions(Versions::Pin).with_older(one("other", &store));
    let error = graph.resume(&thread("t")).answer::<Approve>(&true).await.unwrap_err();
    assert_eq!(error.code(), "run::other_version");
}

#[tokio::test]
async fn a_migrated_state_is_no_other_version_of_the_graph_whether_it_is_this_one_or_an_older() {
    for versions in [Versions::Refuse, Versions::Pin] {
        let (store, ran) = (store(), Count::default());
        wait_in_v1(&store, &ran).await;
        let graph = v3(&store, &ran).versions(versions);
        let done = graph.resume(&thread("t")).answer::<Approve>(&true).await.unwrap();
        assert!(done.done().is_some());
    }
    let (store, ran) = (store(), Count::default());
    wait_in_v1(&store, &ran).await;
    let graph = longer(&store).versions(Versions::Pin).with_older(v3(&store, &ran));
    let done = graph
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.notes, ["approved: true", "noted"]);
}

#[tokio::test]
async fn what_a_pinned_version_requires_is_asked_of_the_run() {
    let store = store();
    let needy = || {
        let mut g = Graph::<Chat>::builder("chat");
        let ask = g.node("ask", |_: Arc<Chat>, ctx: Context<()>| async move {
            ctx.ask(Approve { text: String::new() })?;
            ctx.provided::<u8>()?;
            Ok(())
        });
        g.requires::<u8>().edge(START, ask).edge(ask, END);
        g.build()
            .unwrap()
            .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>)
    };
    needy()
        .run(&thread("t"), ChatInput::new("why?"))
        .provide(1_u8)
        .await
        .unwrap();
    let graph = longer(&store).versions(Versions::Pin).with_older(needy());
    // Between the two stands only the wiring: `requires` is no part of the fingerprint, so the graphs must differ in it.
    let error = graph.resume(&thread("t")).answer::<Approve>(&true).await.unwrap_err();
    assert_eq!(error.code(), "run::missing");
    assert!(
        graph
            .resume(&thread("t"))
            .provide(1_u8)
            .answer::<Approve>(&true)
            .await
            .unwrap()
            .done()
            .is_some()
    );
}

#[tokio::test]
async fn a_failed_thread_of_an_older_version_is_retried_in_the_newer() {
    let store = store();
    let mut g = Graph::<ChatV1>::builder("chat");
    let node = g.node("work", |_: Arc<ChatV1>| async {
        Err::<(), _>(NodeError::terminal("broken"))
    });
    g.edge(START, node).edge(node, END);
    let old = g
        .build()
        .unwrap()
        .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    old.run(&thread("t"), ChatV1Input::new("why?")).await.unwrap_err();
    let mut g = Graph::<Chat>::builder("chat");
    let node = g.node("work", |chat: Arc<Chat>| async move {
        Ok(Chat::update().notes([chat.question.clone()]))
    });
    g.edge(START, node).edge(node, END);
    let new = g
        .build()
        .unwrap()
        .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    let done = new.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(done.notes, ["why?"]);
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!((head.info.state_version, head.parts.len()), (3, 1));
}
