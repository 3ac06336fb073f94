//! B7 and B11: the short runs of B5 with their threads on disk.

use serde::Serialize;
use serde_json::{Value, json};
use stepgraph_checkpoint::{Postgres, Sqlite};

use crate::{
    chat::{QUESTION, chats, figures, graph},
    measure::{Figures, Spent, once, rounded},
    raw::{folder_bytes, inserts, inserts_in_postgres, tables_bytes},
    settings::{Settings, Side},
};

const RUNS: usize = 1_000;

/// How the time on the wall compares, where a disk has its share in it.
fn on_the_wall(time: Option<Spent>, floor: Option<Spent>) -> Value {
    json!(time.zip(floor).map(|(time, floor)| rounded(time.wall / floor.wall)))
}

pub(crate) async fn on_sqlite(settings: Settings) -> Vec<Figures> {
    let rows = rows();
    let raw = tempfile::tempdir().unwrap();
    let inserts = inserts(raw.path().join("raw.db"), &rows);
    let floor = settings.time(Side::Floor, inserts).await;
    let mut all = Vec::new();
    for at_once in [1, 64] {
        let part = format!("{at_once} at a time");
        let opened = || async {
            let folder = tempfile::tempdir().unwrap();
            let store = Sqlite::open(folder.path().join("threads.db")).await.unwrap();
            (folder, graph().checkpointer(store))
        };
        let (mut time, mut bytes) = (None, None);
        if settings.times(Side::Engine) {
            let (folder, graph) = opened().await;
            time = Some(once(chats(graph, RUNS, at_once)).await);
            bytes = Some(folder_bytes(folder.path(), "threads.db").await);
        }
        let mut figures = figures(&part, RUNS, (time, floor));
        figures.bytes = bytes;
        if floor.is_some() {
            figures.floor_bytes = Some(folder_bytes(raw.path(), "raw.db").await);
        }
        figures.more.push(("floor_wall_ratio", on_the_wall(time, floor)));
        figures.counts = settings.count(opened, async |(folder, graph)| {
            chats(graph, RUNS, at_once).await;
            drop(folder);
        });
        all.push(figures);
    }
    all
}

/// The time of this process alone is counted; what the server spends shows in the time on the wall.
pub(crate) async fn on_postgres(settings: Settings) -> Vec<Figures> {
    let server = stepgraph_live::Postgres::shared().unwrap();
    let raw = server.database().await.unwrap();
    let rows = rows();
    let inserts = inserts_in_postgres(&raw, &rows);
    let floor = settings.time(Side::Floor, inserts).await;
    let mut all = Vec::new();
    for at_once in [1, 64] {
        let part = format!("{at_once} at a time");
        let opened = || async {
            let url = server.database().await.unwrap();
            let store = Postgres::open(&url).await.unwrap();
            (url, graph().checkpointer(store))
        };
        let (mut time, mut bytes) = (None, None);
        if settings.times(Side::Engine) {
            let (url, graph) = opened().await;
            time = Some(once(chats(graph, RUNS, at_once)).await);
            bytes = Some(tables_bytes(&url).await);
        }
        let mut figures = figures(&part, RUNS, (time, floor));
        figures.bytes = bytes;
        if floor.is_some() {
            figures.floor_bytes = Some(tables_bytes(&raw).await);
        }
        figures.more.push(("floor_wall_ratio", on_the_wall(time, floor)));
        figures.counts = settings.count(opened, |(_, graph)| chats(graph, RUNS, at_once));
        all.push(figures);
    }
    all
}

/// What the floor writes for the same runs: the whole state four times each.
fn rows() -> Vec<(String, i64, Vec<u8>)> {
    #[derive(Default, Serialize)]
    struct Whole {
        question: &'static str,
        docs: Vec<&'static str>,
        answer: &'static str,
        logged: u32,
    }
    let mut rows = Vec::new();
    for run in 0..RUNS {
        let mut state = Whole {
            question: QUESTION,
            ..Whole::default()
        };
        for step in 0..4 {
            match step {
                1 => state.docs = vec!["d1", "d2", "d3"],
                2 => state.answer = "the answer",
                3 => state.logged = 1,
                _ => {}
            }
            rows.push((run.to_string(), step, serde_json::to_vec(&state).unwrap()));
        }
    }
    rows
}
