//! The engine over a file: what one process leaves behind, the next one goes on with.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

use std::{
    future::{IntoFuture, pending, ready},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Append, Ask, Checkpointer, Context, END, Effect, FromState, Graph, NodeError, Outcome, START, State, Sum,
    TenantId, ThreadId, ThreadKey,
    checkpoint::{At, Page},
};
use stepgraph_checkpoint::Sqlite;
use tempfile::TempDir;
use tokio::sync::Notify;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Talk {
    #[state(input, reducer = Append)]
    messages: Vec<String>,
    #[state(reducer = Sum)]
    turns: u64,
    #[state(per_run)]
    answer: Option<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "review", answer = Option<bool>)]
struct Review;

#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A folder with a file of threads.
struct File(TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("threads.db")
    }
}

fn thread() -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("t").unwrap())
}

fn says(message: &str) -> TalkInput {
    TalkInput::new([message.to_owned()])
}

/// What each process does at its start.
async fn process(graph: Graph<Talk>, path: &Path) -> Graph<Talk> {
    graph.checkpointer(Sqlite::open(path).await.unwrap())
}

fn asked(outcome: Outcome<Talk>) -> Vec<stepgraph::Question> {
    match outcome {
        Outcome::Asked(questions) => questions,
        other => panic!("{other:?}"),
    }
}

/// The time and the id that one entry of the node drew.
type Drawn = (String, String);

/// An effect, then a question; what each entry drew is noted.
fn asking(effects: &Count, drawn: &Arc<Mutex<Vec<Drawn>>>) -> Graph<Talk> {
    let (effects, drawn) = (effects.clone(), Arc::clone(drawn));
    let mut g = Graph::<Talk>::builder("asking");
    let node = g.node("node", move |_: Arc<Talk>, ctx: Context<()>| {
        let effects = effects.clone();
        drawn
            .lock()
            .unwrap()
            .push((format!("{:?}", ctx.now()), ctx.uuid("x").to_string()));
        async move {
            let number = ctx.once("count", Effect::other(|| ready(Ok(effects.up())))).await?;
            let good = ctx.ask(Review)?;
            Ok(Talk::update().answer(format!("{number} {good:?}")))
        }
    });
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_question_waits_over_processes_and_its_node_draws_and_does_the_same_again() {
    let (file, effects, drawn) = (File::new(), Count::default(), Arc::default());
    let graph = process(asking(&effects, &drawn), &file.path()).await;
    let first = asked(graph.run(&thread(), says("a")).await.unwrap());
    drop(graph);
    let graph = process(asking(&effects, &drawn), &file.path()).await;
    assert_eq!(
        graph.state(&thread(), At::Head).await.unwrap().unwrap().questions,
        first
    );
    let again = asked(
        graph
            .resume(&thread())
            .answers(Answers::One(json!("perhaps")))
            .await
            .unwrap(),
    );
    assert!(again[0].problem.is_some());
    drop(graph);
    let graph = process(asking(&effects, &drawn), &file.path()).await;
    let state = graph
        .resume(&thread())
        .answers(Answers::One(json!(null)))
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!((state.answer.as_deref(), effects.get()), (Some("1 None"), 1));
    let drawn = drawn.lock().unwrap();
    assert_eq!(drawn.len(), 3);
    assert!(drawn.iter().all(|entry| *entry == drawn[0]), "{drawn:?}");
}

/// Answers each message; `slow` waits for ever while told to.
fn answering(entries: &Count, stuck: Option<&Arc<Notify>>) -> Graph<Talk> {
    let (entries, stuck) = (entries.clone(), stuck.cloned());
    let mut g = Graph::<Talk>::builder("answering");
    let quick = g.node("quick", move |talk: Arc<Talk>| {
        entries.up();
        ready(Ok(
            Talk::update().messages([format!("re: {}", talk.messages.last().unwrap())])
        ))
    });
    let slow = g.node("slow", move |_: Arc<Talk>| {
        let stuck = stuck.clone();
        async move {
            if let Some(started) = stuck {
                started.notify_one();
                pending::<()>().await;
            }
            Ok(Talk::update().turns(1_u64))
        }
    });
    let end = g.node("end", |talk: Arc<Talk>| {
        ready(Ok(Talk::update().answer(talk.messages.len().to_string())))
    });
    g.edge(START, quick)
        .edge(START, slow)
        .join([quick, slow], end)
        .edge(end, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_run_that_was_cut_off_is_found_and_ends_in_the_next_process_with_each_task_once() {
    let (file, entries, started) = (File::new(), Count::default(), Arc::new(Notify::new()));
    let graph = process(answering(&entries, Some(&started)), &file.path()).await;
    let mut run = graph.run(&thread(), says("a")).into_future();
    let watch = Sqlite::open(file.path()).await.unwrap();
    let quick_is_kept = async {
        loop {
            let found = watch.get(&thread(), At::Head).await.unwrap();
            if found.is_some_and(|found| found.records.iter().any(|record| record.task == "quick")) {
                break;
            }
        }
    };
    tokio::select! {
        outcome = &mut run => panic!("{outcome:?}"),
        () = quick_is_kept => {}
    }
    drop((run, graph));
    let graph = process(answering(&entries, None), &file.path()).await;
    assert_eq!(graph.unfinished(10).await.unwrap(), [thread()]);
    let state = graph.resume(&thread()).await.unwrap().done().unwrap();
    assert_eq!(
        (state.messages, state.turns),
        (vec!["a".to_owned(), "re: a".to_owned()], 1)
    );
    assert_eq!((state.answer.as_deref(), entries.get()), (Some("2"), 1));
    assert!(graph.unfinished(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_long_thread_reads_back_the_same_at_every_step() {
    let (file, entries) = (File::new(), Count::default());
    let graph = process(answering(&entries, None), &file.path()).await;
    let mut ends = Vec::new();
    for turn in 0..100 {
        let message = format!("{turn} {}", "x".repeat(100));
        ends.push(graph.run(&thread(), says(&message)).await.unwrap().done().unwrap());
    }
    drop(graph);
    let graph = process(answering(&entries, None), &file.path()).await;
    let mut page = Page { before: None, limit: 7 };
    let mut steps = Vec::new();
    loop {
        let entries = graph.history(&thread(), page).await.unwrap();
        let Some(last) = entries.last() else { break };
        page.before = Some(last.seq);
        steps.extend(entries);
    }
    assert_eq!(steps.len(), 300);
    let finished = steps.iter().rev().filter(|entry| entry.next.is_empty());
    for (entry, end) in finished.zip(&ends) {
        assert_eq!(
            graph.state(&thread(), At::Id(entry.id)).await.unwrap().unwrap().state,
            *end
        );
    }
    assert_eq!(ends.len(), 100);
}

#[tokio::test]
async fn two_processes_on_one_file_never_both_write_a_thread() {
    let (file, entries, started) = (File::new(), Count::default(), Arc::new(Notify::new()));
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let notify = Arc::clone(&started);
    let mut g = Graph::<Talk>::builder("answering");
    let [quick, slow, end] = ["quick", "slow", "end"].map(|name| {
        let (gate, notify) = (Arc::clone(&gate), Arc::clone(&notify));
        g.node(name, move |_: Arc<Talk>| {
            let (gate, notify) = (Arc::clone(&gate), Arc::clone(&notify));
            async move {
                notify.notify_one();
                gate.notified().await;
                Ok::<(), NodeError>(())
            }
        })
    });
    g.edge(START, quick)
        .edge(START, slow)
        .join([quick, slow], end)
        .edge(end, END);
    let older = process(g.build().unwrap(), &file.path()).await;
    let newer = process(answering(&entries, None), &file.path()).await;
    let run = tokio::spawn(older.run(&thread(), says("a")).into_future());
    started.notified().await;
    let state = newer.resume(&thread()).await.unwrap().done().unwrap();
    go.notify_one();
    go.notify_one();
    assert_eq!(run.await.unwrap().unwrap_err().code(), "checkpoint::fenced");
    assert_eq!(newer.state(&thread(), At::Head).await.unwrap().unwrap().state, state);
}

impl FromState<Talk> for TalkInput {
    fn from_state(talk: &Arc<Talk>) -> Self {
        Self::new(talk.messages.clone())
    }
}

/// Takes the answer of the graph inside.
struct Answer(Option<String>);

impl FromState<Talk> for Answer {
    fn from_state(talk: &Arc<Talk>) -> Self {
        Self(talk.answer.clone())
    }
}

impl From<Answer> for TalkUpdate {
    fn from(Answer(answer): Answer) -> Self {
        Talk::update().answer(answer)
    }
}

#[tokio::test]
async fn a_question_two_graphs_deep_is_answered_in_another_process() {
    let (file, effects, drawn) = (File::new(), Count::default(), Arc::default());
    let nested = || {
        let mut graph = asking(&effects, &drawn);
        for name in ["middle", "outer"] {
            let mut g = Graph::<Talk>::builder(name);
            let host = g.node("host", graph.as_node::<TalkInput, Answer>());
            g.edge(START, host).edge(host, END);
            graph = g.build().unwrap();
        }
        graph
    };
    let open = asked(
        process(nested(), &file.path())
            .await
            .run(&thread(), says("a"))
            .await
            .unwrap(),
    );
    assert_eq!(open[0].node, "host/host/node");
    let graph = process(nested(), &file.path()).await;
    let state = graph
        .resume(&thread())
        .answer::<Review>(&Some(true))
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!((state.answer.as_deref(), effects.get()), (Some("1 Some(true)"), 1));
}
