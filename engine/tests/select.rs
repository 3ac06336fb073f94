//! Parts of a history: by source, run and step, page by page, with some fields of the states.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Append, Context, END, Graph, Memory, NodeError, RunId, START, Selected, Selection, State, Sum, ThreadKey,
    checkpoint::{CheckpointSource, Page, Seq},
};
use support::threads::thread;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Counted {
    #[state(reducer = Append)]
    #[serde(rename = "journal")]
    log: Vec<i64>,
    #[state(reducer = Sum)]
    n: u64,
    #[state(untracked)]
    scratch: u64,
}

/// Two nodes, one after the other: three checkpoints a run.
fn graph() -> Graph<Counted> {
    let mut g = Graph::<Counted>::builder("counted");
    let add =
        |_: Arc<Counted>, ctx: Context<()>| ready(Ok::<_, NodeError>(Counted::update().log(vec![ctx.step()]).n(1_u64)));
    let (first, second) = (g.node("first", add), g.node("second", add));
    g.edge(START, first).edge(first, second).edge(second, END);
    g.build().unwrap().checkpointer(Memory::new())
}

/// Runs it so many times on one thread; gives the runs, oldest first.
async fn ran(graph: &Graph<Counted>, thread: &ThreadKey, times: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..times {
        let run = RunId::random();
        graph.run(thread, CountedInput {}).id(run).await.unwrap();
        runs.push(run);
    }
    runs
}

fn page(before: Option<Seq>, limit: u32) -> Page {
    Page { before, limit }
}

fn steps(selected: &[Selected]) -> Vec<i64> {
    selected.iter().map(|at| at.entry.step).collect()
}

#[tokio::test]
async fn a_selection_names_checkpoints_by_source_run_and_steps() {
    let (graph, thread) = (graph(), thread("t"));
    let runs = ran(&graph, &thread, 3).await;
    let all = graph.history(&thread, page(None, 100)).await.unwrap();
    let select = async |selection: Selection| {
        let found = graph.select(&thread, &selection, page(None, 100)).await.unwrap();
        assert!(found.selected.iter().all(|at| at.fields.is_empty()));
        found.selected.into_iter().map(|at| at.entry).collect::<Vec<_>>()
    };
    assert_eq!(select(Selection::all()).await, all);
    let inputs = select(Selection::all().source(CheckpointSource::Input)).await;
    assert_eq!(inputs.len(), 3);
    let second = select(Selection::all().run(runs[1])).await;
    assert_eq!(second.len(), 3);
    assert!(second.iter().all(|entry| entry.run == Some(runs[1])));
    let steps = 1..=second[0].step;
    let both = select(
        Selection::all()
            .run(runs[0])
            .steps(steps)
            .source(CheckpointSource::Step),
    )
    .await;
    assert_eq!(both.iter().map(|entry| entry.step).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn fields_are_those_of_each_checkpoint_under_the_names_of_the_state() {
    let (graph, thread) = (graph(), thread("t"));
    ran(&graph, &thread, 1).await;
    let selection = Selection::all().fields(["n", "log"]);
    let found = graph.select(&thread, &selection, page(None, 100)).await.unwrap();
    let fields: Vec<_> = found.selected.into_iter().map(|at| at.fields).collect();
    let expected = [
        json!({"n": 2, "log": [1, 2]}),
        json!({"n": 1, "log": [1]}),
        json!({"n": 0, "log": []}),
    ];
    assert_eq!(serde_json::to_value(fields).unwrap(), json!(expected));
}

#[tokio::test]
async fn pages_follow_one_another_whatever_is_left_out() {
    let (graph, thread) = (graph(), thread("t"));
    ran(&graph, &thread, 120).await;
    let selection = Selection::all().source(CheckpointSource::Input);
    let whole = graph.select(&thread, &selection, page(None, 1000)).await.unwrap();
    assert_eq!((whole.selected.len(), whole.next), (120, None));
    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let found = graph.select(&thread, &selection, page(before, 7)).await.unwrap();
        assert!(found.selected.len() <= 7);
        paged.extend(steps(&found.selected));
        before = found.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(paged, steps(&whole.selected));
}

#[tokio::test]
async fn a_field_that_is_not_stored_is_an_error_that_names_it() {
    let (graph, thread) = (graph(), thread("t"));
    ran(&graph, &thread, 1).await;
    for field in ["nothing", "scratch", "journal"] {
        let selection = Selection::all().fields([field]);
        let error = graph.select(&thread, &selection, page(None, 1)).await.unwrap_err();
        assert_eq!(error.code(), "run::unknown_field");
        assert!(error.to_string().contains(field), "{error}");
    }
}
