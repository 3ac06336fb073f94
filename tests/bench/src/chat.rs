//! B5 and B6: many short runs of three nodes.

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{END, Graph, Memory, START, State, TenantId, ThreadId, ThreadKey};

use crate::{
    floor,
    measure::{Figures, Spent, as_f64, concurrent, once, rounded},
    settings::{Counted, Settings},
};

pub(crate) const QUESTION: &str = "what are your opening hours?";
const RUNS: usize = 10_000;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chat {
    #[state(untracked)]
    counted: Counted,
    #[state(input)]
    question: String,
    docs: Vec<String>,
    answer: String,
    logged: u32,
}

pub(crate) fn graph() -> Graph<Chat> {
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
pub(crate) async fn chats(graph: Graph<Chat>, runs: usize, at_once: usize) {
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

pub(crate) fn figures(part: &str, runs: usize, (time, floor): (Option<Spent>, Option<Spent>)) -> Figures {
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

pub(crate) async fn unkept(settings: Settings) -> Vec<Figures> {
    let graph = graph();
    let engine = || settings.repeat(|| chats(graph.clone(), RUNS, 64));
    let floor = || floor::chats(settings, RUNS, QUESTION, false);
    let times = settings.beside(engine, floor).await;
    vec![Figures {
        counts: settings.count(|| ready(graph.clone()), |graph| chats(graph, RUNS, 64)),
        ..figures("", RUNS, times)
    }]
}

pub(crate) async fn in_memory(settings: Settings) -> Vec<Figures> {
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
