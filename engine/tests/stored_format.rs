//! The bytes that are stored, as they are: a change of them is seen here, and what was stored before must still load.
//!
//! After a change that is meant: add the new bytes as another file, keep the old ones in `EARLIER`, and say so in the changelog.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Change, Checkpointer, Command, Context, END, Graph, Keyed, Memory, MergeMap, Outcome, Route, RunId,
    START, State, Sum, Union, Upsert,
    checkpoint::{
        At, CheckpointSource, Commit, NewCheckpoint, Page, Payload, RecordKind, RunMark, RunStatus, TaskRecord,
    },
    from, to,
};
use support::threads::thread;

/// Every file of stored bytes that must load, the newest first.
const EARLIER: &[&str] = &[include_str!("fixtures/stored-1.txt")];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    id: u32,
    text: String,
}

impl Keyed for Note {
    type Key = u32;

    fn key(&self) -> &u32 {
        &self.id
    }
}

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Desk {
    #[state(input)]
    question: String,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    total: i64,
    #[state(reducer = Union)]
    tags: BTreeSet<String>,
    #[state(reducer = MergeMap)]
    facts: BTreeMap<String, f64>,
    #[state(reducer = Upsert)]
    notes: Vec<Note>,
    answer: Option<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve {
    text: String,
}

#[derive(Clone, Copy, Debug, Route)]
enum Ways {
    Again,
    Enough,
}

/// Something of everything that is stored: a snapshot, a delta, a begun join, sends, results, a choice, a question.
fn graph(store: &Arc<Memory>) -> Graph<Desk> {
    let mut g = Graph::<Desk>::builder("desk");
    let note = |id, text: &str| {
        Change::put(Note {
            id,
            text: text.to_owned(),
        })
    };
    let first = g.node("first", move |_: Arc<Desk>| async move {
        let update = Desk::update().log(["first".into()]).total(2_i64).tags(["a".into()]);
        Ok(update
            .facts([("one".into(), 1.0)])
            .notes([note(1, "one"), note(2, "two")]))
    });
    let work = g.worker("work", |item: u32, ctx: Context<()>| async move {
        if item == 2 {
            ctx.ask(Approve { text: "two?".into() })?;
        }
        Ok(Desk::update()
            .log([format!("item {item}")])
            .notes([Change::remove(item)]))
    });
    let router = g.router("router", |_: Arc<Desk>| async {
        Ok(Command {
            update: Desk::update().overwrite_tags(["b".to_owned()]),
            goto: Ways::Enough,
        })
    });
    let end = g.node("end", |desk: Arc<Desk>| async move {
        Ok(Desk::update().answer(desk.log.join(", ")))
    });
    g.edge(START, first)
        .edge(first, router)
        .fan_out(first, work, |_| [1_u32, 2]);
    g.routes(router, |way| match way {
        Ways::Again => to(first),
        Ways::Enough => to(END),
    });
    g.join([from(first), from(work)], end).edge(end, END);
    g.build()
        .unwrap()
        .shared_checkpointer(Arc::clone(store) as Arc<dyn Checkpointer>)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hex: &str) -> Arc<[u8]> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// One line a row: what it is, then its bytes.
async fn written(store: &Memory) -> String {
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    let mut text = String::new();
    for (at, part) in head.parts.iter().enumerate() {
        writeln!(text, "part {at} {}", hex(part)).unwrap();
    }
    writeln!(text, "frontier {}", hex(&head.info.frontier)).unwrap();
    for record in &head.records {
        let (kind, key) = (
            record.kind.as_str(),
            if record.key.is_empty() { "-" } else { &record.key },
        );
        writeln!(text, "record {} {kind} {key} {}", record.task, hex(&record.body)).unwrap();
    }
    text
}

/// A thread made of such lines.
async fn stored(text: &str) -> Arc<Memory> {
    let store = Arc::new(Memory::new());
    let key = thread("t");
    let epoch = store.claim(&key).await.unwrap();
    let (mut parts, mut frontier, mut records) = (Vec::new(), Arc::from([]), Vec::new());
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["part", _, hex] => parts.push(bytes(hex)),
            ["frontier", hex] => frontier = bytes(hex),
            ["record", task, kind, key, hex] => records.push(TaskRecord {
                task: (*task).to_owned(),
                kind: RecordKind::from_name(kind).unwrap(),
                key: key.trim_matches('-').to_owned(),
                body: bytes(hex),
            }),
            other => unreachable!("{other:?}"),
        }
    }
    let (mut head, count) = (None, parts.len());
    for (at, part) in parts.into_iter().enumerate() {
        let last = at + 1 == count;
        let mark = RunMark {
            run: RunId::from(uuid::Uuid::from_u128(7)),
            graph: "desk".into(),
            status: RunStatus::Asked,
            error: None,
        };
        let commit = Commit {
            checkpoint: Some(NewCheckpoint {
                id: uuid::Uuid::from_u128(at as u128),
                step: i64::try_from(at).unwrap(),
                source: CheckpointSource::Step,
                payload: if at == 0 {
                    Payload::Snapshot(part)
                } else {
                    Payload::Delta(part)
                },
                frontier: if last {
                    Arc::clone(&frontier)
                } else {
                    rmp_serde::to_vec_named(&serde_json::json!({"tasks": []}))
                        .unwrap()
                        .into()
                },
                fingerprint: graph(&store).fingerprint(),
                state_version: 1,
                created_at: chrono::DateTime::UNIX_EPOCH,
            }),
            run: Some(mark),
            ..Commit::default()
        };
        head = store.commit(&key, epoch, head, commit).await.unwrap();
    }
    let commit = Commit {
        records,
        ..Commit::default()
    };
    store.commit(&key, epoch, head, commit).await.unwrap();
    store
}

#[tokio::test]
async fn what_is_stored_today_is_what_was_stored_before() {
    let store = Arc::new(Memory::new());
    let outcome = graph(&store).run(&thread("t"), DeskInput::new("why?")).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)));
    let entries = graph(&store).history(&thread("t"), Page::default()).await.unwrap();
    assert_eq!(entries.len(), 2);
    let written = written(&store).await;
    assert_eq!(written, EARLIER[0], "the stored form has changed:\n{written}");
}

#[tokio::test]
async fn a_thread_of_every_stored_form_goes_on() {
    for text in EARLIER {
        let store = stored(text).await;
        let desk = graph(&store)
            .resume(&thread("t"))
            .answer::<Approve>(&true)
            .await
            .unwrap()
            .done()
            .unwrap();
        assert_eq!(
            desk,
            Desk {
                question: "why?".into(),
                log: ["first", "item 1", "item 2"].map(str::to_owned).into(),
                total: 2,
                tags: ["b".to_owned()].into(),
                facts: [("one".to_owned(), 1.0)].into(),
                notes: Vec::new(),
                answer: Some("first, item 1, item 2".into()),
            }
        );
    }
}
