//! The reducers of collections, what the store keeps of them, and setting a field outright.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use proptest::{collection, option, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::checkpoint::At;
use stepgraph::{
    Append, Change, Changes, Checkpointer, END, Graph, Keyed, Memory, MergeMap, NOTES_MAX, NodeError, RunError, START,
    State, Sum, Union, Update, Upsert, View,
};

use support::threads::thread;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Message {
    id: u8,
    text: String,
}

impl Keyed for Message {
    type Key = u8;

    fn key(&self) -> &u8 {
        &self.id
    }
}

fn message(id: u8, text: &str) -> Message {
    Message {
        id,
        text: text.to_owned(),
    }
}

#[derive(State, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct All {
    #[state(reducer = Union)]
    tags: BTreeSet<u8>,
    #[state(reducer = Union)]
    seen: HashSet<u8>,
    #[state(reducer = Union)]
    sorted: Vec<u8>,
    #[state(reducer = MergeMap)]
    facts: BTreeMap<String, u8>,
    #[state(reducer = MergeMap)]
    counts: HashMap<u8, String>,
    #[state(reducer = Upsert)]
    messages: Vec<Message>,
    #[state(reducer = Append)]
    log: Vec<u8>,
    #[state(reducer = Sum)]
    total: u64,
}

fn change() -> impl Strategy<Value = Change<Message>> {
    prop_oneof![
        3 => (0..6_u8, "[a-c]{0,2}").prop_map(|(id, text)| Change::put(Message { id, text })),
        1 => (0..6_u8).prop_map(Change::remove),
    ]
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    // A list that is given as a whole may hold one key twice.
    collection::vec(
        (0..6_u8, "[a-c]{0,2}").prop_map(|(id, text)| Message { id, text }),
        0..5,
    )
}

prop_compose! {
    fn folded()(
        tags in option::of(collection::btree_set(any::<u8>(), 0..4)),
        seen in option::of(collection::hash_set(any::<u8>(), 0..4)),
        sorted in option::of(collection::vec(0..20_u8, 0..4)),
        facts in option::of(collection::btree_map("[a-d]", any::<u8>(), 0..4)),
        counts in option::of(collection::hash_map(0..9_u8, "[a-d]", 0..4)),
        messages in option::of(collection::vec(change(), 0..6)),
        log in option::of(collection::vec(any::<u8>(), 0..4)),
        total in option::of(0..9_u64),
    ) -> AllUpdateFields {
        AllUpdateFields { tags, seen, sorted, facts, counts, messages, log, total, ..AllUpdateFields::default() }
    }
}

prop_compose! {
    fn update()(
        folded in folded(),
        tags in option::weighted(0.1, collection::btree_set(any::<u8>(), 0..4)),
        sorted in option::weighted(0.1, collection::vec(0..20_u8, 0..4)),
        facts in option::weighted(0.1, collection::btree_map("[a-d]", any::<u8>(), 0..4)),
        messages in option::weighted(0.1, messages()),
        log in option::weighted(0.1, collection::vec(any::<u8>(), 0..4)),
    ) -> AllUpdate {
        AllUpdateFields {
            overwrite_tags: tags,
            overwrite_sorted: sorted,
            overwrite_facts: facts,
            overwrite_messages: messages,
            overwrite_log: log,
            ..folded
        }
        .into()
    }
}

proptest! {
    #[test]
    fn a_snapshot_and_the_effects_that_follow_make_the_live_state(
        steps in collection::vec(collection::vec(update(), 0..4), 0..8)
    ) {
        let mut live = All::start(&(), AllInput::new());
        let mut parts = vec![live.encode().unwrap()];
        let mut changes = Changes::default();
        for step in steps {
            for update in step {
                live.apply(update, &mut changes);
            }
            parts.push(live.encode_changes(&changes).unwrap());
            changes.clear();
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(All::decode(&(), &parts).unwrap(), live);
    }

    #[test]
    fn an_update_comes_back_as_it_was_written_down(update in update()) {
        let bytes = rmp_serde::to_vec_named(&update).unwrap();
        let read: AllUpdate = rmp_serde::from_slice(&bytes).unwrap();
        prop_assert_eq!(rmp_serde::to_vec_named(&read).unwrap().len(), bytes.len());
        let (mut a, mut b) = (All::default(), All::default());
        a.apply(update, &mut Changes::default());
        b.apply(read, &mut Changes::default());
        prop_assert_eq!(a, b);
    }
}

#[test]
fn a_list_is_changed_by_the_keys_of_its_items() {
    let mut state = All::default();
    let mut changes = Changes::default();
    let update = All::update().messages([message(1, "a"), message(2, "b"), message(3, "c")].map(Change::from));
    state.apply(update, &mut changes);
    let update = All::update().messages([
        Change::put(message(2, "B")),
        Change::remove(1),
        Change::put(message(4, "d")),
    ]);
    state.apply(update, &mut changes);
    assert_eq!(state.messages, [message(2, "B"), message(3, "c"), message(4, "d")]);
    state.apply(All::update().messages([Change::remove(9)]), &mut changes);
    assert_eq!(state.messages.len(), 3, "an unknown key removes nothing");
}

#[test]
fn only_what_a_step_wrote_is_stored_of_a_collection() {
    let mut live = All::default();
    let many = 0..200_u8;
    let update = All::update()
        .tags(many.clone().collect::<BTreeSet<_>>())
        .facts(
            many.clone()
                .map(|n| (format!("key {n}"), n))
                .collect::<BTreeMap<_, _>>(),
        )
        .messages(
            many.map(|id| Change::put(message(id, "some text that is long")))
                .collect::<Vec<_>>(),
        );
    live.apply(update, &mut Changes::default());
    let mut changes = Changes::default();
    let update = All::update()
        .tags([250])
        .facts([("key 7".to_owned(), 0)])
        .messages([Change::put(message(7, "new")), Change::remove(8)]);
    live.apply(update, &mut changes);
    let (whole, part) = (live.encode().unwrap(), live.encode_changes(&changes).unwrap());
    assert!(
        part.len() < 120,
        "{} bytes are stored of a step that wrote four entries",
        part.len()
    );
    assert!(whole.len() > 5000);
    let stored: serde_json::Value = rmp_serde::from_slice(&part).unwrap();
    assert_eq!(
        stored,
        json!({
            "tags": {"merge": [250]},
            "facts": {"merge": {"key 7": 0}},
            "messages": {"merge": [{"remove": 8}, {"put": {"id": 7, "text": "new"}}]},
        })
    );
}

#[test]
fn a_step_that_writes_more_keys_than_are_noted_stores_the_whole_value() {
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Wide {
        #[state(reducer = MergeMap)]
        cells: BTreeMap<usize, u8>,
    }
    let (mut live, mut changes) = (Wide { cells: BTreeMap::new() }, Changes::default());
    let first = live.encode().unwrap();
    for part in [0..NOTES_MAX, NOTES_MAX..NOTES_MAX + 1] {
        live.apply(
            Wide::update().cells(part.map(|n| (n, 1)).collect::<BTreeMap<_, _>>()),
            &mut changes,
        );
    }
    let part = live.encode_changes(&changes).unwrap();
    let stored: BTreeMap<String, BTreeMap<String, BTreeMap<usize, u8>>> = rmp_serde::from_slice(&part).unwrap();
    assert_eq!(stored["cells"].keys().collect::<Vec<_>>(), ["set"]);
    assert_eq!(Wide::decode(&(), &[&first, &part]).unwrap(), live);
}

#[test]
fn an_update_that_was_stored_before_fields_could_be_overwritten_still_loads() {
    let old = rmp_serde::to_vec_named(&json!({"log": [1, 2], "total": 3})).unwrap();
    let update = rmp_serde::from_slice::<AllUpdate>(&old).unwrap().into_fields();
    assert_eq!(
        (update.log, update.total, update.overwrite_log),
        (Some(vec![1, 2]), Some(3), None)
    );
}

#[test]
fn an_overwritten_field_counts_as_touched_and_is_forgotten_with_its_value() {
    let fields = All::fields(&());
    let log = fields.iter().position(|field| field.name == "log").unwrap();
    let mut update = All::update().overwrite_log([9]).total(1_u64);
    assert!(!update.is_empty() && update.touched(fields).contains(log));
    assert_eq!(update.overwritten(fields).iter().collect::<Vec<_>>(), [log]);
    update.forget(fields, log);
    assert!(!update.touched(fields).contains(log) && !update.is_empty());
}

/// Nodes by name, each with what it writes, side by side.
fn crowd(writes: &[(&'static str, AllUpdate)]) -> Graph<All> {
    let mut g = Graph::<All>::builder("crowd");
    for (name, update) in writes.iter().cloned() {
        let node = g.node(name, move |_: Arc<All>| {
            let update = update.clone();
            async move { Ok(update) }
        });
        g.edge(START, node).edge(node, END);
    }
    g.build().unwrap()
}

#[tokio::test]
async fn what_others_write_in_the_step_to_an_overwritten_field_is_dropped_whether_before_or_after() {
    let graph = crowd(&[
        ("a", All::update().log([1]).total(1_u64)),
        ("b", All::update().overwrite_log([9]).total(2_u64)),
        ("c", All::update().log([3])),
    ]);
    let state = graph.run(&thread("t"), AllInput::new()).await.unwrap().done().unwrap();
    assert_eq!((state.log, state.total), (vec![9], 3));
}

#[tokio::test]
async fn two_overwrites_of_one_field_in_a_step_name_both_nodes() {
    let graph = crowd(&[
        ("a", All::update().overwrite_log([1])),
        ("b", All::update().overwrite_log([2])),
    ]);
    let error = graph.run(&thread("t"), AllInput::new()).await.unwrap_err();
    assert!(
        matches!(&error, RunError::Conflict { field, first, second, .. } if field == "log" && first == "a" && second == "b"),
        "{error}"
    );
}

#[tokio::test]
async fn an_overwrite_is_kept_when_a_sibling_fails_and_acts_when_the_thread_goes_on() {
    let failed = Arc::new(Mutex::new(false));
    let mut g = Graph::<All>::builder("kept");
    let fill = g.node("fill", |_: Arc<All>| async {
        Ok(All::update().log([1, 2]).messages([message(1, "a").into()]))
    });
    let clear = g.node("clear", |_: Arc<All>| async {
        tokio::task::yield_now().await;
        Ok(All::update().overwrite_log([]).overwrite_messages([message(5, "e")]))
    });
    let once = Arc::clone(&failed);
    let flaky = g.node("flaky", move |_: Arc<All>| {
        let first = !std::mem::replace(&mut *once.lock().unwrap(), true);
        async move {
            if first {
                return Err(NodeError::terminal("down"));
            }
            Ok(All::update().log([3]).total(1_u64))
        }
    });
    g.edge(START, fill)
        .edge(fill, clear)
        .edge(fill, flaky)
        .edge(clear, END)
        .edge(flaky, END);
    let store = Arc::new(Memory::new());
    let graph = g
        .build()
        .unwrap()
        .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    let thread = thread("t");
    graph.run(&thread, AllInput::new()).await.unwrap_err();
    let live = graph.state(&thread, At::Head).await.unwrap().unwrap();
    assert_eq!(live.state.log, [] as [u8; 0], "the live state shows what is kept");
    let state = graph.resume(&thread).await.unwrap().done().unwrap();
    assert_eq!((state.log.len(), state.total), (0, 1));
    assert_eq!(state.messages, [message(5, "e")]);
    let loaded = graph.state(&thread, At::Head).await.unwrap().unwrap();
    assert_eq!(loaded.state.messages, [message(5, "e")], "what is stored says the same");
}

#[tokio::test]
async fn a_thread_of_many_steps_stores_a_map_in_proportion_to_what_changed() {
    #[derive(State, Clone, Debug, Serialize, Deserialize)]
    struct Facts {
        #[state(input, reducer = MergeMap)]
        facts: BTreeMap<String, String>,
    }
    let mut g = Graph::<Facts>::builder("facts");
    let nothing = g.node("nothing", |_: Arc<Facts>| async { Ok(()) });
    g.edge(START, nothing).edge(nothing, END);
    let store = Arc::new(Memory::new());
    let graph = g
        .build()
        .unwrap()
        .shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    let thread = thread("t");
    let turns = 200;
    for turn in 0..turns {
        let fact = BTreeMap::from([(format!("key {turn}"), "x".repeat(100))]);
        graph.run(&thread, FactsInput::new(fact)).await.unwrap();
    }
    let state = graph.state(&thread, At::Head).await.unwrap().unwrap().state;
    assert_eq!(state.facts.len(), turns);
    let whole = state.encode().unwrap().len();
    let mut stored = 0;
    for entry in graph
        .history(
            &thread,
            stepgraph::checkpoint::Page {
                before: None,
                limit: 1000,
            },
        )
        .await
        .unwrap()
    {
        let checkpoint = store.get(&thread, At::Seq(entry.seq)).await.unwrap().unwrap();
        stored += checkpoint.parts.last().unwrap().len();
    }
    assert!(stored <= 3 * whole, "{stored} bytes are stored of a state of {whole}");
}

#[tokio::test]
async fn an_outcome_and_a_snapshot_are_read_through_a_view() {
    #[derive(View, Debug, PartialEq)]
    #[view(of = All)]
    struct Seen {
        log: Vec<u8>,
    }
    let graph = crowd(&[("a", All::update().log([4]))]).checkpointer(Memory::new());
    let outcome = graph.run(&thread("t"), AllInput::new()).await.unwrap();
    assert_eq!(outcome.view::<Seen>(), Some(Seen { log: vec![4] }));
    let snapshot = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(snapshot.view::<Seen>(), Seen { log: vec![4] });
}

/// More fields than an update has places for, one of them of a reducer that folds.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Broad {
    #[state(reducer = Append)]
    log: Vec<u8>,
    a: u8,
    b: u8,
    c: u8,
    d: u8,
    e: u8,
    f: u8,
    g: u8,
    #[state(reducer = Sum)]
    h: u64,
}

#[test]
fn an_update_of_many_fields_writes_what_it_was_given_and_reads_back() {
    let fields = Broad::fields(&());
    let update = Broad::update().h(3_u64).log([1]).a(1).c(2).c(5).overwrite_log(vec![9]);
    assert_eq!(
        serde_json::to_string(&update).unwrap(),
        r#"{"log":[1],"a":1,"c":5,"h":3,"overwrite_log":[9]}"#
    );
    assert_eq!(update.touched(fields).iter().collect::<Vec<_>>(), [0, 1, 3, 8]);
    assert_eq!(update.overwritten(fields).iter().collect::<Vec<_>>(), [0]);
    let stored: BroadUpdate = rmp_serde::from_slice(&rmp_serde::to_vec_named(&update).unwrap()).unwrap();
    let whole = BroadUpdate::from(update.clone().into_fields());
    for update in [update, stored, whole] {
        let mut state = Broad {
            log: vec![7],
            ..Broad::start(&(), BroadInput::new())
        };
        state.apply(update, &mut Changes::default());
        assert_eq!((state.log, state.a, state.c, state.h), (vec![9], 1, 5, 3));
    }
    let mut forgotten = Broad::update().log([1]).overwrite_log(vec![9]).b(4);
    forgotten.forget(fields, 0);
    assert_eq!(serde_json::to_string(&forgotten).unwrap(), r#"{"b":4}"#);
    assert!(!forgotten.is_empty() && Broad::update().is_empty());
}
