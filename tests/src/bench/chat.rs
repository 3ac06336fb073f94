//! B5, B6, B7 and B11: many short runs of three nodes.

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{END, Graph, Memory, START, State, TenantId, ThreadId, ThreadKey};
use stepgraph_checkpoint::{Postgres, PostgresOptions, Sqlite};

use super::{
    floor,
    measure::{Figures, Spent, as_f64, concurrent, folder_bytes, once, rounded, tables_bytes},
    settings::{Counted, Settings, Side},
};

const QUESTION: &str = "what are your opening hours?";
const RUNS: usize = 10_000;
const RUNS_ON_DISK: usize = 1_000;
/// As many as write at once without waiting for each other on a machine of some cores.
const CONNECTIONS: u32 = 16;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Chat {
    #[state(untracked)]
    counted: Counted,
    #[state(input)]
    question: String,
    docs: Vec<String>,
    answer: String,
    logged: u32,
}

fn graph() -> Graph<Chat> {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", |_: Arc<Chat>| {
        ready(Ok(Chat::update().docs(["d1", "d2", "d3"].map(str::to_owned))))
    });
    let generate = g.node("generate", |_: Arc<Chat>| {
        ready(Ok(Chat::update().answer("the answer")))
    });
    let log = g.node("log", |_: Arc<Chat>| ready(Ok(Chat::update().logged(1_u32))));
    g.edge(START, retrieve)
        .edge(retrieve, generate)
        .edge(generate, log)
        .edge(log, END);
    g.build().unwrap()
}

async fn chat(graph: &Graph<Chat>, thread: &ThreadKey) {
    let input = ChatInput {
        question: QUESTION.to_owned(),
    };
    let state = graph.run(thread, input).await.unwrap().done().unwrap();
    assert_eq!((state.logged, state.docs.len()), (1, 3));
}

/// So many chats, each on a thread of its own.
async fn chats(graph: Graph<Chat>, runs: usize, at_once: usize) {
    let shared = Arc::new((graph, TenantId::authenticated("bench").unwrap()));
    let job = move |at: usize| {
        let shared = Arc::clone(&shared);
        async move {
            let (graph, tenant) = &*shared;
            let thread = ThreadKey::new(tenant.clone(), ThreadId::new(at.to_string()).unwrap());
            chat(graph, &thread).await;
        }
    };
    concurrent(runs, at_once, job).await;
}

fn figures(part: &str, runs: usize, (time, floor): (Option<Spent>, Option<Spent>)) -> Figures {
    let runs_a_second = time.map(|time| rounded(as_f64(u64::try_from(runs).unwrap()) / time.wall));
    Figures {
        part: part.to_owned(),
        steps: u64::try_from(runs * 3).unwrap(),
        time,
        floor,
        more: vec![("runs_per_second", json!(runs_a_second))],
        ..Figures::default()
    }
}

pub(super) async fn unkept(settings: Settings) -> Vec<Figures> {
    let graph = graph();
    let engine = || settings.repeat(|| chats(graph.clone(), RUNS, 64));
    let floor = || floor::chats(settings, RUNS, QUESTION, false);
    let times = settings.beside(engine, floor).await;
    vec![Figures {
        counts: settings.count(|| ready(graph.clone()), |graph| chats(graph, RUNS, 64)),
        ..figures("", RUNS, times)
    }]
}

pub(super) async fn in_memory(settings: Settings) -> Vec<Figures> {
    let mut all = Vec::new();
    for runs in [RUNS, RUNS * 10] {
        // As the floor's map, the store is there when the clock stops: what is kept is not torn down in a step.
        let engine = || async {
            let graph = graph().checkpointer(Memory::new());
            once(chats(graph.clone(), runs, 64)).await
        };
        let floor = || floor::chats(settings, runs, QUESTION, true);
        let times = settings.beside(engine, floor).await;
        let part = if runs == RUNS { "" } else { "ten times the threads" };
        let kept = || ready(graph().checkpointer(Memory::new()));
        all.push(Figures {
            counts: settings.count(kept, |graph| chats(graph, runs, 64)),
            ..figures(part, runs, times)
        });
    }
    all
}

/// How the time on the wall compares, where a disk has its share in it.
fn on_the_wall(time: Option<Spent>, floor: Option<Spent>) -> Value {
    json!(time.zip(floor).map(|(time, floor)| rounded(time.wall / floor.wall)))
}

pub(super) async fn on_sqlite(settings: Settings) -> Vec<Figures> {
    let rows = rows();
    let raw = tempfile::tempdir().unwrap();
    let inserts = floor::inserts(raw.path().join("raw.db"), &rows);
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
            time = Some(once(chats(graph, RUNS_ON_DISK, at_once)).await);
            bytes = Some(folder_bytes(folder.path(), "threads.db").await);
        }
        let mut figures = figures(&part, RUNS_ON_DISK, (time, floor));
        figures.bytes = bytes;
        if floor.is_some() {
            figures.floor_bytes = Some(folder_bytes(raw.path(), "raw.db").await);
        }
        figures.more.push(("floor_wall_ratio", on_the_wall(time, floor)));
        figures.counts = settings.count(opened, async |(folder, graph)| {
            chats(graph, RUNS_ON_DISK, at_once).await;
            drop(folder);
        });
        all.push(figures);
    }
    all
}

/// The time of this process alone is counted; what the server spends shows in the time on the wall.
pub(super) async fn on_postgres(settings: Settings) -> Vec<Figures> {
    let server = stepgraph_live::Postgres::shared().unwrap();
    let raw = server.database().await.unwrap();
    let rows = rows();
    let inserts = floor::inserts_in_postgres(&raw, &rows);
    let floor = settings.time(Side::Floor, inserts).await;
    let mut all = Vec::new();
    for at_once in [1, 64] {
        let part = format!("{at_once} at a time");
        let opened = || async {
            let url = server.database().await.unwrap();
            let options = PostgresOptions::default().connections_max(CONNECTIONS);
            let store = Postgres::open_with(&url, options).await.unwrap();
            (url, graph().checkpointer(store))
        };
        let (mut time, mut bytes) = (None, None);
        if settings.times(Side::Engine) {
            let (url, graph) = opened().await;
            time = Some(once(chats(graph, RUNS_ON_DISK, at_once)).await);
            bytes = Some(tables_bytes(&url).await);
        }
        let mut figures = figures(&part, RUNS_ON_DISK, (time, floor));
        figures.bytes = bytes;
        if floor.is_some() {
            figures.floor_bytes = Some(tables_bytes(&raw).await);
        }
        figures.more.push(("floor_wall_ratio", on_the_wall(time, floor)));
        figures.counts = settings.count(opened, |(_, graph)| chats(graph, RUNS_ON_DISK, at_once));
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
    for run in 0..RUNS_ON_DISK {
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
