//! What becomes of the state of a graph inside a node: fresh, accumulating, unkept.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Append, Ask, Context, END, FromState, Graph, Memory, NodeError, Outcome, Question, Route, RunError, START,
    State, Subgraph, SubgraphError, SubgraphMode, Sum, from, to,
};
use support::{store::Watched, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tale {
    #[state(input)]
    text: String,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
}

/// The same as it is inside.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Memo {
    #[state(input)]
    text: String,
    #[state(reducer = Append)]
    seen: Vec<String>,
}

impl FromState<Tale> for MemoInput {
    fn from_state(tale: &Arc<Tale>) -> Self {
        Self {
            text: format!("{}{}", tale.text, tale.rounds),
        }
    }
}

impl FromState<Tale> for TaleInput {
    fn from_state(tale: &Arc<Tale>) -> Self {
        Self {
            text: tale.text.clone(),
        }
    }
}

impl From<Arc<Memo>> for TaleUpdate {
    fn from(memo: Arc<Memo>) -> Self {
        Tale::update().log([memo.seen.join(" ")])
    }
}

impl From<Arc<Tale>> for TaleUpdate {
    fn from(tale: Arc<Tale>) -> Self {
        Tale::update().log(tale.log.clone())
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = String)]
struct Sure;

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Enough,
}

/// Remembers its input; asks first, if it is to.
fn memo(asks: bool) -> Graph<Memo> {
    let mut g = Graph::<Memo>::builder("memo");
    let note = g.node("note", move |memo: Arc<Memo>, ctx: Context<()>| async move {
        tokio::task::yield_now().await;
        let said = if asks { ctx.ask(Sure)? } else { String::new() };
        Ok(Memo::update().seen([format!("{}{said}", memo.text)]))
    });
    g.edge(START, note).edge(note, END);
    g.build().unwrap()
}

fn hosted(asks: bool, mode: SubgraphMode) -> Subgraph<Memo, MemoInput, Arc<Memo>> {
    memo(asks).as_node().mode(mode)
}

/// So many rounds of `host`.
fn rounds(host: Subgraph<Memo, MemoInput, Arc<Memo>>, rounds: u64) -> Graph<Tale> {
    let mut g = Graph::<Tale>::builder("rounds");
    let host = g.node("host", host);
    let count = g.node("count", |_: Arc<Tale>| async { Ok(Tale::update().rounds(1_u64)) });
    g.edge(START, host).edge(host, count);
    g.branch(
        count,
        move |tale: &Tale| {
            if tale.rounds.is_multiple_of(rounds) {
                Round::Enough
            } else {
                Round::Again
            }
        },
        |round| match round {
            Round::Again => to(host),
            Round::Enough => to(END),
        },
    );
    g.build().unwrap()
}

fn input(text: &str) -> TaleInput {
    TaleInput { text: text.to_owned() }
}

fn asked<S: std::fmt::Debug>(outcome: Outcome<S>) -> Vec<Question> {
    match outcome {
        Outcome::Asked(questions) => questions,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_fresh_graph_begins_anew_with_each_task_and_an_accumulating_one_goes_on() {
    for (mode, expected) in [
        (SubgraphMode::Fresh, ["a0", "a1", "a2"]),
        (SubgraphMode::Unkept, ["a0", "a1", "a2"]),
        (SubgraphMode::Accumulating, ["a0", "a0 a1", "a0 a1 a2"]),
    ] {
        let graph = rounds(hosted(false, mode), 3).checkpointer(Watched::default());
        let state = graph.run(&thread("t"), input("a")).await.unwrap().done().unwrap();
        assert_eq!(state.log, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn an_accumulating_graph_lasts_over_the_runs_of_its_thread_and_no_other() {
    let graph = rounds(memo(false).as_node().accumulating(), 1).checkpointer(Memory::new());
    graph.run(&thread("t"), input("a")).await.unwrap();
    let state = graph.run(&thread("t"), input("b")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["a0", "a0 b1"]);
    let state = graph.run(&thread("other"), input("c")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["c0"]);
}

#[tokio::test]
async fn two_hosts_of_one_accumulating_graph_keep_apart() {
    let mut g = Graph::<Tale>::builder("apart");
    let [left, right] =
        ["left", "right"].map(|name| g.node(name, memo(false).as_node::<MemoInput, Arc<Memo>>().accumulating()));
    g.edge(START, left).edge(START, right).edge(left, END).edge(right, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), input("a")).await.unwrap();
    let state = graph.run(&thread("t"), input("b")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["a0", "a0", "a0 b0", "a0 b0"]);
}

#[tokio::test]
async fn two_tasks_of_one_step_cannot_share_an_accumulating_graph() {
    let mut g = Graph::<Tale>::builder("shared");
    let work = g.worker("work", |item: u64, ctx: Context<()>| async move {
        let input = MemoInput { text: item.to_string() };
        let inner = ctx
            .call_as(SubgraphMode::Accumulating, &memo(false), "memo", input)
            .await?;
        Ok(Tale::update().log([inner.seen.join(" ")]))
    });
    g.fan_out(START, work, |tale: &Tale| 0..tale.text.len() as u64)
        .edge(work, END);
    let graph = g.build().unwrap().checkpointer(Watched::default());
    // One at a time is fine.
    let state = graph.run(&thread("t"), input("a")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["0"]);
    let error = graph.run(&thread("t"), input("ab")).await.unwrap_err();
    assert_eq!(
        error.node_error::<SubgraphError>().unwrap().code(),
        "subgraph::shared_in_step"
    );
    let error = graph.resume(&thread("t")).await.unwrap_err();
    assert_eq!(
        error.node_error::<SubgraphError>().unwrap().code(),
        "subgraph::shared_in_step"
    );
}

#[tokio::test]
async fn an_accumulating_graph_needs_a_store() {
    let graph = rounds(hosted(false, SubgraphMode::Accumulating), 1);
    let error = graph.run(&thread("t"), input("a")).await.unwrap_err();
    assert_eq!(
        error.node_error::<SubgraphError>().unwrap().code(),
        "subgraph::no_checkpointer"
    );
}

#[tokio::test]
async fn an_unkept_graph_writes_nothing_and_cannot_ask() {
    let store = Watched::default();
    let graph = rounds(memo(false).as_node().unkept(), 1).checkpointer(store.clone());
    graph.run(&thread("t"), input("a")).await.unwrap();
    assert_eq!(store.commits(), 3, "the input and two steps");
    let graph = rounds(hosted(true, SubgraphMode::Unkept), 1).checkpointer(Memory::new());
    let error = graph.run(&thread("t"), input("a")).await.unwrap_err();
    let refused = error.node_error::<SubgraphError>().unwrap();
    assert_eq!(refused.code(), "subgraph::question_not_kept");
    assert!(refused.to_string().contains("`sure` of graph `memo`"), "{refused}");
}

#[tokio::test]
async fn an_accumulating_graph_ends_the_same_whichever_commit_fails() {
    let whole = Watched::default();
    let graph = rounds(hosted(false, SubgraphMode::Accumulating), 3).checkpointer(whole.clone());
    let expected = graph.run(&thread("t"), input("a")).await.unwrap().done().unwrap();
    for commit in 1..=whole.commits() {
        let store = Watched::default();
        let graph = rounds(hosted(false, SubgraphMode::Accumulating), 3).checkpointer(store.clone());
        store.fail_commit_at(commit);
        graph.run(&thread("t"), input("a")).await.unwrap_err();
        let outcome = match graph.resume(&thread("t")).await {
            Err(RunError::UnknownThread { .. }) => graph.run(&thread("t"), input("a")).await.unwrap(),
            outcome => outcome.unwrap(),
        };
        assert_eq!(outcome.done().unwrap(), expected, "commit {commit}");
    }
}

#[tokio::test]
async fn what_a_task_left_unfinished_inside_is_given_up_with_it() {
    let tries = Arc::new(AtomicUsize::new(0));
    let mut g = Graph::<Memo>::builder("failing");
    let note = g.node("note", move |memo: Arc<Memo>| {
        let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                return Err(NodeError::terminal("not yet"));
            }
            Ok(Memo::update().seen([memo.text.clone()]))
        }
    });
    g.edge(START, note).edge(note, END);
    let graph = rounds(g.build().unwrap().as_node().accumulating(), 1).checkpointer(Memory::new());
    graph.run(&thread("t"), input("a")).await.unwrap_err();
    let run = graph
        .run(&thread("t"), input("b"))
        .on_pending(stepgraph::OnPending::Discard);
    assert_eq!(run.await.unwrap().done().unwrap().log, ["b0"]);
}

/// The host of `memo`, so many graphs deep.
fn nested(depth: usize, mode: SubgraphMode) -> Graph<Tale> {
    if depth == 1 {
        return rounds(hosted(true, mode), 2);
    }
    let mut g = Graph::<Tale>::builder("nested");
    let deeper = nested(depth - 1, mode).as_node::<TaleInput, Arc<Tale>>().mode(mode);
    let host = g.node("deeper", deeper);
    g.edge(START, host).edge(host, END);
    g.build().unwrap()
}

#[tokio::test]
async fn questions_at_any_depth_are_answered_in_fresh_and_accumulating_graphs() {
    for mode in [SubgraphMode::Fresh, SubgraphMode::Accumulating] {
        for depth in 1..=3 {
            let graph = nested(depth, mode).checkpointer(Watched::default());
            asked(graph.run(&thread("t"), input("a")).await.unwrap());
            let second = asked(
                graph
                    .resume(&thread("t"))
                    .answer::<Sure>(&"!".to_owned())
                    .await
                    .unwrap(),
            );
            assert_eq!(second.len(), 1, "{mode:?} at {depth}");
            let by_id = Answers::Many(vec![(second[0].id.clone(), json!("?"))]);
            let state = graph.resume(&thread("t")).answers(by_id).await.unwrap().done().unwrap();
            let expected = match mode {
                SubgraphMode::Accumulating => ["a0!", "a0! a1?"],
                _ => ["a0!", "a1?"],
            };
            assert_eq!(state.log, expected, "{mode:?} at {depth}");
        }
    }
}

#[tokio::test]
async fn questions_of_graphs_side_by_side_are_answered_one_after_the_other_or_at_once() {
    for mode in [SubgraphMode::Fresh, SubgraphMode::Accumulating] {
        for at_once in [false, true] {
            let mut g = Graph::<Tale>::builder("side_by_side");
            let [left, right] = ["left", "right"].map(|name| g.node(name, hosted(true, mode)));
            let gather = g.node("gather", |_: Arc<Tale>| async { Ok(()) });
            g.edge(START, left).edge(START, right).edge(gather, END);
            g.join([from(left), from(right)], gather);
            let graph = g.build().unwrap().checkpointer(Watched::default());
            let open = asked(graph.run(&thread("t"), input("a")).await.unwrap());
            assert_eq!(open.len(), 2);
            let answer = |question: &Question| (question.id.clone(), json!(question.node));
            let outcome = if at_once {
                graph
                    .resume(&thread("t"))
                    .answers(Answers::Many(open.iter().map(answer).collect()))
                    .await
            } else {
                let first = Answers::Many(vec![answer(&open[1])]);
                let left = asked(graph.resume(&thread("t")).answers(first).await.unwrap());
                assert_eq!((left.len(), &left[0].id), (1, &open[0].id));
                graph.resume(&thread("t")).answer::<Sure>(&left[0].node).await
            };
            assert_eq!(
                outcome.unwrap().done().unwrap().log,
                ["a0left/note", "a0right/note"],
                "{mode:?}"
            );
        }
    }
}
