//! What a run that goes on is told: where it is seen, and as which node an edit is made after it.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use serde_json::{Value, json};
use stepgraph::{
    AsNode, Ask, Graph, Memory, Outcome,
    checkpoint::{At, Seq},
    dynamic::{Channels, DynamicBuilder, Goto, JsonInput, JsonState, JsonUpdate, Merge, Reply},
};
use support::threads::thread;

#[derive(serde::Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve;

fn line(text: &str) -> JsonUpdate {
    JsonUpdate::new().set("log", json!([text]))
}

/// `a` asks and is followed by `c`; `b` stands aside.
fn graph() -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("told", Channels::new([("log", Merge::Append)]).unwrap());
    g.node("a", |_, ctx| async move {
        let _approved = ctx.ask(Approve)?;
        Ok(Reply::from(line("a")))
    });
    g.node("b", |_, _| async { Ok(line("b").into()) });
    g.node("c", |_, _| async { Ok(line("c").into()) });
    g.edge("START", "a").edge("a", "c").edge("b", "END").edge("c", "END");
    g.branch("c", |state| match state.get("log").and_then(Value::as_array) {
        Some(log) if log.contains(&json!("lost")) => vec![Goto::Node("nowhere".to_owned())],
        _ => Vec::new(),
    });
    g.build().unwrap().checkpointer(Memory::new())
}

fn log(state: &JsonState) -> Value {
    state.get("log").cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_task_that_a_resumed_run_was_told_to_run_is_among_the_threads_tasks() {
    let (graph, key) = (graph(), thread("t"));
    graph.run(&key, JsonInput::new()).await.unwrap();
    graph.resume(&key).goto("b").await.unwrap();
    let head = graph.state(&key, At::Head).await.unwrap().unwrap();
    let tasks: Vec<_> = head
        .tasks
        .iter()
        .map(|task| (task.task.as_str(), task.finished))
        .collect();
    assert_eq!(tasks, [("a", false), ("b", true)]);
    assert_eq!(
        (log(&head.state), head.entry.next),
        (json!(["b"]), vec!["a".to_owned()])
    );
}

#[tokio::test]
async fn an_edit_after_a_step_with_a_task_that_was_told_names_both() {
    let (graph, key) = (graph(), thread("t"));
    graph.run(&key, JsonInput::new()).await.unwrap();
    graph.resume(&key).goto("b").await.unwrap();
    let run = graph.resume(&key).answer::<Approve>(&true).stop_after(["a"]);
    assert!(matches!(run.await, Ok(Outcome::Breakpoint(_))));
    let error = graph
        .update(&key, At::Head, line("edit"), AsNode::Last)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "run::ambiguous_update");
    assert!(error.to_string().contains(r#"["a", "b"]"#), "{error}");
}

#[tokio::test]
async fn a_branch_that_runs_again_begins_with_what_it_was_told() {
    let (graph, key) = (graph(), thread("t"));
    graph.run(&key, JsonInput::new()).await.unwrap();
    let again = graph.rerun_from(&key, At::Seq(Seq(1))).update(line("told")).goto("b");
    assert!(matches!(again.await, Ok(Outcome::Asked(_))));
    let head = graph.state(&key, At::Head).await.unwrap().unwrap();
    assert_eq!((head.entry.seq, log(&head.state)), (Seq(2), json!(["told", "b"])));
    let done = graph
        .resume(&key)
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(log(&done), json!(["told", "a", "b", "c"]));
}

#[tokio::test]
async fn an_edit_that_leads_nowhere_names_the_node_it_is_made_as() {
    let (graph, key) = (graph(), thread("t"));
    graph.run(&key, JsonInput::new()).await.unwrap();
    let edit = graph.update(&key, At::Head, line("lost"), AsNode::Named("c".to_owned()));
    let error = edit.await.unwrap_err();
    assert_eq!(error.code(), "run::unknown_target");
    assert!(error.to_string().contains("`c`"), "{error}");
}
