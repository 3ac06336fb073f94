//! The laws of a run's events, on both shipped graphs over embedded services: however a run is listened to, it ends as one
//! that is not, what it tells folds to the state it ends with, and within a step everything comes in one order.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

use std::sync::Arc;

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::Value;
use stepgraph::{
    Changes, Event, EventKind, Extra, Run, RunEvent, State, TenantId, ThreadId, ThreadKey, checkpoint::At,
};
use stepgraph_graphs::{ChatStateInput, IngestStateInput};
use stepgraph_nodes::{
    ingest::Job,
    service::{DocumentId, FileType, embedded::Extractive},
};
use stepgraph_tests::{House, session, tenant};

const KETTLE: &str = "The kettle holds two litres of water. The warranty lasts 36 months from the date of purchase.";
const QUESTIONS: [&str; 2] = ["how long is the warranty?", "who won the football world cup in 1998?"];

/// Every set of extras that a reader may ask for.
fn modes() -> Vec<Vec<Extra>> {
    let all = [Extra::Values, Extra::Checkpoints, Extra::Payloads, Extra::Inside];
    let chosen = |set: u32| all.into_iter().enumerate().filter(move |(at, _)| set & (1 << at) != 0);
    (0..16)
        .map(|set| chosen(set).map(|(_, extra)| extra).collect())
        .collect()
}

fn json(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

/// What a run tells, and the state it ends with.
async fn heard<S: State>(run: Run<S>, mode: &[Extra]) -> (Vec<Event<S>>, S) {
    let mut stream = run.stream_with(mode.iter().copied());
    let mut events = Vec::new();
    loop {
        match stream.next().await.unwrap().unwrap() {
            RunEvent::Event(event) => events.push(event),
            RunEvent::Ended(outcome) => return (events, outcome.done().unwrap()),
            _ => panic!("an unknown event"),
        }
    }
}

/// That the events are numbered without a gap, and that what they tell, laid over the state at the run's beginning, gives
/// its last one: by the updates always, by values and checkpoints where the reader asked for them.
fn folds<S: State>(mut begun: S, events: &[Event<S>], last: &Value, mode: &[Extra]) {
    let (mut values, mut saved) = (None, None);
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.seq, number, "{mode:?}");
        match &event.kind {
            EventKind::Update { update, .. } => begun.apply(update.clone(), &mut Changes::default()),
            EventKind::Values { state, .. } => values = Some(json(&**state)),
            EventKind::Saved { state, .. } => saved = state.as_deref().map(json),
            _ => {}
        }
    }
    assert_eq!(json(&begun), *last, "{mode:?}: by updates");
    let asked = |extra, told: Option<Value>| assert_eq!(told, mode.contains(&extra).then(|| last.clone()), "{mode:?}");
    asked(Extra::Values, values);
    asked(Extra::Checkpoints, saved);
}

/// That within each step the tasks come first, then what they emit and give, then the values, then the checkpoint.
fn is_in_order<S: State>(events: &[Event<S>]) {
    let mut rank = 0;
    let mut steps = 0;
    for event in events {
        let next = match &event.kind {
            EventKind::Step { .. } => 1,
            EventKind::Custom { .. } | EventKind::Retry { .. } | EventKind::Update { .. } => 2,
            EventKind::Values { .. } => 3,
            EventKind::Saved { .. } => 4,
            other => panic!("{other:?}"),
        };
        match (rank, next) {
            (4, 1) => steps += 1,
            // A run begins with the checkpoint of its input.
            (1 | 2, 2) | (2, 3) | (0 | 2 | 3, 4) => {}
            other => panic!("{other:?}: {events:?}"),
        }
        rank = next;
    }
    assert!(rank == 4 && steps > 2, "{events:?}");
    let updates: Vec<_> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| matches!(event.kind, EventKind::Update { .. }))
        .collect();
    for (at, update) in updates {
        let EventKind::Update { node, .. } = &update.kind else {
            continue;
        };
        let emits_later = events
            .iter()
            .skip(at)
            .take_while(|event| !matches!(event.kind, EventKind::Step { .. }));
        let mut emits_later =
            emits_later.filter(|event| matches!(&event.kind, EventKind::Custom { node: of, .. } if of == node));
        assert!(emits_later.next().is_none(), "{events:?}");
    }
}

fn question(thread: &ThreadKey, question: &str) -> ChatStateInput {
    ChatStateInput {
        question: question.to_owned(),
        session: thread.thread.as_str().to_owned(),
        asked_at: std::time::UNIX_EPOCH.into(),
        open_ended: false,
        overage: false,
        rewrites: false,
        trace: None,
    }
}

/// A state without how long its prompt was: that depends on what a run draws to fence the passages off.
fn but_for_the_fences(of: &impl Serialize) -> Value {
    let mut state = json(of);
    state["answer"]["usage"] = Value::Null;
    state
}

#[tokio::test]
async fn a_chat_folds_to_the_state_it_ends_with_in_every_mode_and_over_two_turns() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let silent = tenant("silent");
    house.ingest_text(&silent, "kettle", KETTLE).await.unwrap();
    let mut unheard = Vec::new();
    for asked in QUESTIONS {
        unheard.push(but_for_the_fences(
            &house.ask(&session(&silent, "s"), asked).await.unwrap(),
        ));
    }
    assert_ne!(unheard[0]["answer"]["text"], unheard[1]["answer"]["text"]);
    for (number, mode) in modes().into_iter().enumerate() {
        // The same session of another tenant: who it is, is no part of the state.
        let tenant = tenant(&format!("tenant-{number}"));
        house.ingest_text(&tenant, "kettle", KETTLE).await.unwrap();
        let thread = session(&tenant, "s");
        for (asked, unheard) in QUESTIONS.into_iter().zip(&unheard) {
            let input = question(&thread, asked);
            let begun = match house.chat.state(&thread, At::Head).await.unwrap() {
                None => State::start(&(), input),
                Some(snapshot) => {
                    let mut state = snapshot.state;
                    state.restart(input, &mut Changes::default());
                    state
                }
            };
            let (events, last) = heard(house.message(&thread, asked, Arc::new(Extractive)), &mode).await;
            assert_eq!(but_for_the_fences(&last), *unheard, "{mode:?}");
            folds(begun, &events, &json(&last), &mode);
            let kept = house.chat.state(&thread, At::Head).await.unwrap().unwrap();
            assert_eq!(json(&kept.state), json(&last), "{mode:?}");
        }
    }
}

/// An ingestion of a document about to run.
async fn ingestion(house: &House, tenant: &TenantId) -> (IngestStateInput, ThreadKey) {
    let id = DocumentId::new("kettle");
    let accepted = house
        .services
        .documents
        .accept(tenant, &id, "kettle.txt", FileType::Txt, KETTLE.as_bytes())
        .await;
    let job = Job {
        document: id,
        version: accepted.unwrap().version,
        language: None,
    };
    let thread = ThreadKey::new(tenant.clone(), ThreadId::new("document:kettle").unwrap());
    (IngestStateInput { job }, thread)
}

#[tokio::test]
async fn an_ingestion_folds_to_the_state_it_ends_with_in_every_mode() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let (input, thread) = ingestion(&house, &tenant("silent")).await;
    let unheard = json(&house.ingest.run(&thread, input).await.unwrap().done().unwrap());
    assert_ne!(unheard["stored"], Value::Null);
    for (number, mode) in modes().into_iter().enumerate() {
        let (input, thread) = ingestion(&house, &tenant(&format!("tenant-{number}"))).await;
        let begun = State::start(&(), input.clone());
        let (events, last) = heard(house.ingest.run(&thread, input), &mode).await;
        assert_eq!(json(&last), unheard, "{mode:?}");
        folds(begun, &events, &unheard, &mode);
        let kept = house.ingest.state(&thread, At::Head).await.unwrap().unwrap();
        assert_eq!(json(&kept.state), unheard, "{mode:?}");
    }
}

#[tokio::test]
async fn within_a_step_come_its_tasks_then_what_they_emit_then_their_updates_then_the_values_then_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let acme = tenant("acme");
    let all = [Extra::Values, Extra::Checkpoints, Extra::Payloads, Extra::Inside];
    let (input, thread) = ingestion(&house, &acme).await;
    let (events, _) = heard(house.ingest.run(&thread, input), &all).await;
    is_in_order(&events);
    for asked in QUESTIONS {
        let (events, _) = heard(house.message(&session(&acme, "s"), asked, Arc::new(Extractive)), &all).await;
        is_in_order(&events);
        let emitted = events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Custom { .. }))
            .count();
        assert!(emitted > 1, "{events:?}");
    }
}
