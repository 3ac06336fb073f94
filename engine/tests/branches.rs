//! Named branches of a thread: begun, switched between, moved by runs; and a thread's end.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, END, Graph, Memory, OnPending, RunError, START, State,
    checkpoint::{At, Branch, MAIN, Page, Seq},
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Notes {
    #[state(input, reducer = Append)]
    said: Vec<String>,
}

/// `a`, then `b`; with START that makes three checkpoints a run.
fn notes() -> Graph<Notes> {
    let mut g = Graph::<Notes>::builder("notes");
    let a = g.node("a", |_: Arc<Notes>| ready(Ok(Notes::update().said(["a".to_owned()]))));
    let b = g.node("b", |_: Arc<Notes>| ready(Ok(Notes::update().said(["b".to_owned()]))));
    g.edge(START, a).edge(a, b).edge(b, END);
    g.build().unwrap().checkpointer(Memory::new())
}

fn says(what: &str) -> NotesInput {
    NotesInput {
        said: vec![what.to_owned()],
    }
}

async fn shown(graph: &Graph<Notes>) -> Vec<(String, u64, bool)> {
    let branches = graph.branches(&thread("t")).await.unwrap();
    let short = |Branch { name, head, current }| (name, head.0, current);
    branches.into_iter().map(short).collect()
}

async fn said(graph: &Graph<Notes>) -> String {
    let snapshot = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    snapshot.state.said.join(" ")
}

fn branch(name: &str, head: u64, current: bool) -> (String, u64, bool) {
    (name.to_owned(), head, current)
}

#[tokio::test]
async fn a_run_moves_the_branch_that_its_thread_is_on_and_no_other() {
    let (graph, key) = (notes(), thread("t"));
    graph.run(&key, says("one")).await.unwrap();
    assert_eq!(shown(&graph).await, [branch(MAIN, 3, true)]);
    assert_eq!(graph.fork(&key, At::Seq(Seq(2)), "retry").await.unwrap(), Seq(2));
    assert_eq!(shown(&graph).await, [branch(MAIN, 3, false), branch("retry", 2, true)]);
    graph
        .run(&key, says("two"))
        .on_pending(OnPending::Discard)
        .await
        .unwrap();
    assert_eq!(said(&graph).await, "one a two a b");
    assert_eq!(shown(&graph).await, [branch(MAIN, 3, false), branch("retry", 6, true)]);
    assert_eq!(graph.switch(&key, MAIN).await.unwrap(), Seq(3));
    assert_eq!(said(&graph).await, "one a b");
    graph.run(&key, says("three")).await.unwrap();
    assert_eq!(said(&graph).await, "one a b three a b");
    assert_eq!(shown(&graph).await, [branch(MAIN, 9, true), branch("retry", 6, false)]);
    assert_eq!(graph.switch(&key, MAIN).await.unwrap(), Seq(9), "where it is already");
    assert_eq!(
        graph.history(&key, Page::default()).await.unwrap().len(),
        9,
        "nothing is lost"
    );
}

#[tokio::test]
async fn a_forked_thread_goes_on_where_the_branch_begins() {
    let (graph, key) = (notes(), thread("t"));
    graph.run(&key, says("one")).await.unwrap();
    graph.fork(&key, At::Seq(Seq(2)), "again").await.unwrap();
    graph.resume(&key).await.unwrap();
    assert_eq!(said(&graph).await, "one a b");
    assert_eq!(shown(&graph).await, [branch("again", 4, true), branch(MAIN, 3, false)]);
}

#[tokio::test]
async fn a_name_that_is_taken_or_unknown_is_refused_and_moves_nothing() {
    let (graph, key) = (notes(), thread("t"));
    graph.run(&key, says("one")).await.unwrap();
    let taken = graph.fork(&key, At::Seq(Seq(1)), MAIN).await.unwrap_err();
    assert_eq!(taken.code(), "run::branch_exists", "{taken}");
    let unknown = graph.switch(&key, "nowhere").await.unwrap_err();
    assert!(
        matches!(&unknown, RunError::UnknownBranch { branches, .. } if branches == &[MAIN]),
        "{unknown}"
    );
    let missing = graph.fork(&key, At::Seq(Seq(9)), "new").await.unwrap_err();
    assert_eq!(missing.code(), "run::no_checkpoint", "{missing}");
    assert_eq!(shown(&graph).await, [branch(MAIN, 3, true)]);
}

#[tokio::test]
async fn a_deleted_thread_is_gone_and_may_begin_anew() {
    let (graph, key) = (notes(), thread("t"));
    graph.run(&key, says("one")).await.unwrap();
    graph.delete(&key).await.unwrap();
    graph.delete(&key).await.unwrap();
    assert_eq!(graph.state(&key, At::Head).await.unwrap(), None);
    assert_eq!(shown(&graph).await, []);
    graph.run(&key, says("two")).await.unwrap();
    assert_eq!(said(&graph).await, "two a b");
}
