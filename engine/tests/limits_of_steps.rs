//! The step limit is exact, and what happens to work that new input finds unfinished.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod threads;
}

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, END, Graph, Memory, NodeError, OnPending, Outcome, RunError, START, State, Sum,
    checkpoint::{At, CheckpointSource, Page, Seq},
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    lines: Vec<String>,
    #[state(input, default = 0, reducer = Sum)]
    inputs: u64,
}

fn line(text: impl Into<String>) -> LogUpdate {
    Log::update().lines([text.into()])
}

/// Nodes 1 to `steps`, one after the other.
fn chain(steps: usize) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("chain");
    let mut before = None;
    for step in 1..=steps {
        let node = g.node(step.to_string(), move |_: Arc<Log>| async move {
            Ok(line(step.to_string()))
        });
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g.build().unwrap().checkpointer(Memory::new())
}

/// How a run ended: the nodes that have run, and whether it is done.
async fn after(graph: &Graph<Log>, run: stepgraph::Run<Log>) -> (usize, bool) {
    let done = match run.await {
        Ok(Outcome::Done(_)) => true,
        Err(RunError::StepLimit { .. }) => false,
        other => panic!("{other:?}"),
    };
    let state = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    (state.state.lines.len(), done)
}

#[tokio::test]
async fn a_step_limit_counts_the_same_on_fresh_resumed_edited_and_rerun_threads() {
    for limit in 0..=7_u32 {
        let steps = usize::try_from(limit.min(5)).unwrap();
        let expected = (steps, limit >= 5);
        // Fresh: five steps fit in a limit of five.
        let graph = chain(5);
        let fresh = graph.run(&thread("t"), LogInput::new()).step_limit(limit);
        assert_eq!(after(&graph, fresh).await, expected, "fresh, limit {limit}");
        // Resumed before its first step.
        let graph = chain(5);
        let stopped = graph.run(&thread("t"), LogInput::new()).step_limit(0).await;
        assert_eq!(stopped.unwrap_err().code(), "run::step_limit");
        let resumed = graph.resume(&thread("t")).step_limit(limit);
        assert_eq!(after(&graph, resumed).await, expected, "resumed, limit {limit}");
        // Rerun from the admission of a finished thread.
        let graph = chain(5);
        graph.run(&thread("t"), LogInput::new()).await.unwrap();
        let rerun = graph.rerun_from(&thread("t"), At::Seq(Seq(1))).step_limit(limit);
        assert_eq!(after(&graph, rerun).await, expected, "rerun, limit {limit}");
        // Edited as the first of six nodes: five are left.
        let graph = chain(6);
        graph
            .run(&thread("t"), LogInput::new())
            .step_limit(0)
            .await
            .unwrap_err();
        graph
            .update(&thread("t"), At::Head, LogUpdate::default(), "1")
            .await
            .unwrap();
        let edited = graph.resume(&thread("t")).step_limit(limit);
        assert_eq!(after(&graph, edited).await, expected, "edited, limit {limit}");
        // New input on a thread that has ended.
        let graph = chain(5);
        graph.run(&thread("t"), LogInput::new()).await.unwrap();
        let again = graph.run(&thread("t"), LogInput::new()).step_limit(limit);
        assert_eq!(
            after(&graph, again).await,
            (5 + expected.0, expected.1),
            "again, limit {limit}"
        );
    }
}

/// `good` and `bad` side by side; `bad` fails the first time.
fn pair() -> Graph<Log> {
    let mut g = Graph::<Log>::builder("pair");
    let good = g.node("good", |_: Arc<Log>| async { Ok(line("good")) });
    let failures = Arc::new(AtomicUsize::new(1));
    let bad = g.node("bad", move |_: Arc<Log>| {
        let left = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        async move {
            if left.is_ok() {
                Err(NodeError::terminal("no"))
            } else {
                Ok(line("bad"))
            }
        }
    });
    g.edge(START, good).edge(START, bad).edge(good, END).edge(bad, END);
    g.build().unwrap().checkpointer(Memory::new())
}

#[tokio::test]
async fn new_input_over_unfinished_work_is_refused_unless_it_says_what_becomes_of_it() {
    let (graph, t) = (pair(), thread("t"));
    graph.run(&t, LogInput::new()).await.unwrap_err();
    let shown = graph.state(&t, At::Head).await.unwrap().unwrap();
    assert_eq!(shown.state.lines, ["good"], "a finished sibling's write is shown");
    let refused = graph.run(&t, LogInput::new()).await.unwrap_err();
    assert_eq!(refused.code(), "run::pending");
    let after = graph.state(&t, At::Head).await.unwrap().unwrap();
    assert_eq!(after, shown, "a refusal changes nothing");
}

#[tokio::test]
async fn work_that_is_committed_stays_in_the_state_that_the_new_input_finds() {
    let (graph, t) = (pair(), thread("t"));
    graph.run(&t, LogInput::new()).await.unwrap_err();
    let run = graph.run(&t, LogInput::new()).on_pending(OnPending::CommitFinished);
    let Outcome::Done(log) = run.await.unwrap() else {
        panic!("it is not done")
    };
    assert_eq!(log.lines, ["good", "bad", "good"]);
}

#[tokio::test]
async fn work_that_is_discarded_stays_in_the_history() {
    let (graph, t) = (pair(), thread("t"));
    graph.run(&t, LogInput::new()).await.unwrap_err();
    let run = graph.run(&t, LogInput::new()).on_pending(OnPending::Discard);
    let Outcome::Done(log) = run.await.unwrap() else {
        panic!("it is not done")
    };
    assert_eq!(log.lines, ["bad", "good"]);
    let mut history = graph.history(&t, Page::default()).await.unwrap();
    history.reverse();
    let told: Vec<_> = history.iter().map(|entry| (entry.source, entry.next.clone())).collect();
    let both = || vec!["bad".to_owned(), "good".to_owned()];
    let expected = [
        (CheckpointSource::Input, both()),
        (CheckpointSource::Input, both()),
        (CheckpointSource::Step, Vec::new()),
    ];
    assert_eq!(told, expected, "the checkpoint whose tasks were dropped names them");
    // What had finished there can still be taken up.
    let outcome = graph.rerun_from(&t, At::Seq(Seq(1))).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_writers_each_head_takes_one() {
    const WRITERS: usize = 100;
    let store: Arc<Memory> = Arc::default();
    let graph = || {
        let mut g = Graph::<Log>::builder("one");
        let add = g.node("add", |log: Arc<Log>| async move {
            tokio::task::yield_now().await;
            Ok(line(log.lines.len().to_string()))
        });
        g.edge(START, add).edge(add, END);
        g.build().unwrap().shared_checkpointer(store.clone())
    };
    // Two graphs know nothing of each other, as two processes do not.
    let graphs = [graph(), graph()];
    let runs: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let graph = graphs[writer % 2].clone();
            tokio::spawn(async move {
                let run = graph.run(&thread("t"), LogInput::new());
                run.on_pending(OnPending::Discard).await
            })
        })
        .collect();
    let mut done = 0;
    for run in runs {
        match run.await.unwrap() {
            Ok(outcome) => {
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                done += 1;
            }
            Err(error) => {
                let code = error.code();
                assert!(
                    ["run::busy", "checkpoint::fenced", "checkpoint::conflict"].contains(&code),
                    "{error}"
                );
            }
        }
    }
    assert!(done >= 1);
    let page = Page {
        before: None,
        limit: u32::MAX,
    };
    let history = graphs[0].history(&thread("t"), page).await.unwrap();
    let steps = history
        .iter()
        .filter(|entry| entry.source == CheckpointSource::Step)
        .count();
    assert_eq!(steps, done, "each run that says it is done has a checkpoint of its own");
    let parents: std::collections::HashSet<_> = history.iter().map(|entry| entry.parent).collect();
    assert_eq!(parents.len(), history.len(), "no checkpoint has two that grow from it");
    let last = graphs[0].state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(last.state.lines.len(), done);
}
