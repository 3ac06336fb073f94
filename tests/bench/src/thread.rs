//! B8 and B9: one thread that grows.

use std::{future::ready, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Append, END, Graph, Route, START, State,
    checkpoint::{At, Seq},
};
use stepgraph_checkpoint::Sqlite;
use tempfile::TempDir;

use crate::{
    chain::thread,
    measure::{Figures, Moment, as_f64, rounded},
    raw::{folder_bytes, inserts},
    settings::{Counted, Settings, Side},
};

const STEPS: usize = 1_000;

/// A message of 108 bytes of text beside its id and role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Message {
    id: String,
    role: String,
    content: String,
}

fn message(at: usize) -> Message {
    Message {
        id: format!("m{at:06}"),
        role: if at.is_multiple_of(2) { "user" } else { "assistant" }.to_owned(),
        content: "lorem ipsum dolor sit amet ".repeat(4),
    }
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Talk {
    #[state(untracked)]
    counted: Counted,
    #[state(input)]
    steps: usize,
    #[state(reducer = Append)]
    messages: Vec<Message>,
}

#[derive(Route, Clone, Copy, Debug)]
enum Next {
    Again,
    Enough,
}

async fn graph(folder: &Path) -> Graph<Talk> {
    let mut g = Graph::<Talk>::builder("talk");
    let node = g.node("say", |talk: Arc<Talk>| {
        ready(Ok(Talk::update().messages(vec![message(talk.messages.len())])))
    });
    g.edge(START, node);
    g.branch(
        node,
        |talk| {
            if talk.messages.len() < talk.steps {
                Next::Again
            } else {
                Next::Enough
            }
        },
        move |next| match next {
            Next::Again => stepgraph::to(node),
            Next::Enough => stepgraph::to(END),
        },
    );
    let store = Sqlite::open(folder.join("threads.db")).await.unwrap();
    g.build().unwrap().checkpointer(store)
}

/// Runs so many steps of the thread, told apart by tenths.
async fn talk(graph: &Graph<Talk>, steps: usize) -> Vec<f64> {
    let mut tenths = Vec::new();
    for tenth in 1..=10 {
        let begun = Moment::now();
        let upto = steps * tenth / 10;
        let run = graph.run(&thread(), TalkInput { steps: upto }).step_limit(u32::MAX);
        assert_eq!(run.await.unwrap().done().unwrap().messages.len(), upto);
        tenths.push(begun.spent().cpu);
    }
    tenths
}

/// The bytes of the messages alone.
fn rows(steps: usize) -> Vec<(String, i64, Vec<u8>)> {
    let row = |at| {
        let body = serde_json::to_vec(&message(at)).unwrap();
        ("t".to_owned(), i64::try_from(at).unwrap(), body)
    };
    (0..steps).map(row).collect()
}

async fn opened() -> (TempDir, Graph<Talk>) {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path()).await;
    (folder, graph)
}

pub(crate) async fn appended(settings: Settings) -> Vec<Figures> {
    let mut all = Vec::new();
    for steps in [STEPS, STEPS * 10] {
        let mut figures = Figures {
            steps: u64::try_from(steps).unwrap(),
            ..Figures::default()
        };
        if steps != STEPS {
            figures.part = format!("{steps} steps");
        }
        if settings.times(Side::Floor) {
            let raw = tempfile::tempdir().unwrap();
            figures.floor = Some(inserts(raw.path().join("raw.db"), &rows(steps)).await);
            figures.floor_bytes = Some(folder_bytes(raw.path(), "raw.db").await);
        }
        if settings.times(Side::Engine) {
            let begun = Moment::now();
            let (folder, graph) = opened().await;
            let tenths = talk(&graph, steps).await;
            figures.time = Some(begun.spent());
            drop(graph);
            let tenth = tenths.last().copied().unwrap_or_default();
            let second = tenths.get(1).copied().unwrap_or_default();
            figures.bytes = Some(folder_bytes(folder.path(), "threads.db").await);
            figures.more.push(("last_tenth_to_second", rounded(tenth / second)));
        }
        figures.counts = settings.count(opened, async |(folder, graph)| {
            talk(&graph, steps).await;
            drop(folder);
        });
        all.push(figures);
    }
    all
}

async fn look(graph: &Graph<Talk>, at: At) {
    let snapshot = graph.state(&thread(), at).await.unwrap().unwrap();
    assert!(!snapshot.state.messages.is_empty());
}

pub(crate) async fn read(settings: Settings) -> Vec<Figures> {
    let (folder, graph) = opened().await;
    talk(&graph, STEPS).await;
    let mut all = Vec::new();
    for (part, at) in [
        ("head", At::Head),
        ("step 999", At::Seq(Seq(1_000))),
        ("step 500", At::Seq(Seq(500))),
        ("step 10", At::Seq(Seq(12))),
    ] {
        let time = settings.time(Side::Engine, settings.repeat(|| look(&graph, at))).await;
        all.push(Figures {
            part: part.to_owned(),
            steps: 1,
            time,
            counts: settings.count(|| self::graph(folder.path()), async |graph| look(&graph, at).await),
            more: vec![
                ("milliseconds", json!(time.map(|time| rounded(time.wall * 1e3)))),
                ("steps_in_thread", rounded(as_f64(1_000))),
            ],
            ..Figures::default()
        });
    }
    all
}
