//! Every error that is about a node says which, at which task, of which thread, from which checkpoint, and what to do.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{error::Error, future::pending, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Append, END, Failed, FromState, Graph, GraphBuilder, Memory, NodeError, OnPending, Route, RunError, START, State,
    checkpoint::Seq,
    dynamic::{Channels, DynamicBuilder, Goto, JsonInput, Merge, Reply, TaskInput},
    to,
};
use support::threads::thread;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Work {
    note: String,
    #[state(reducer = Append)]
    log: Vec<String>,
}

impl FromState<Work> for WorkInput {
    fn from_state(_: &Arc<Work>) -> Self {
        Self::new()
    }
}

impl From<Arc<Work>> for WorkUpdate {
    fn from(_: Arc<Work>) -> Self {
        Work::update()
    }
}

#[derive(Route, Clone, Copy)]
enum Way {
    On,
}

/// The second run of a thread, so that its step begins at another checkpoint than the first.
async fn error_of(declare: impl Fn(&mut GraphBuilder<Work>)) -> RunError {
    let mut g = Graph::<Work>::builder("places");
    declare(&mut g);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    let again = graph.run(&thread("t"), WorkInput::new()).on_pending(OnPending::Discard);
    again.await.unwrap_err()
}

/// That the error names all of it, by its fields and in its message, and a remedy.
fn is_placed(error: &RunError, node: &str, task: &str, remedy: &str) {
    assert_eq!((error.node(), error.task()), (Some(node), Some(task)), "{error}");
    assert_eq!(error.thread(), Some(&thread("t")), "{error}");
    assert_eq!(error.checkpoint(), Some(Seq(2)), "{error}");
    let said = error.to_string();
    for part in [
        &format!("`{node}`"),
        task,
        "thread acme/t",
        "(from checkpoint 2)",
        remedy,
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

fn broken() -> Result<WorkUpdate, NodeError> {
    Err(NodeError::terminal("broken"))
}

#[tokio::test(start_paused = true)]
async fn every_error_about_a_node_names_node_task_thread_checkpoint_and_remedy() {
    let node = error_of(|g| {
        let work = g.worker("work", |_: u64| async { broken() });
        g.fan_out(START, work, |_: &Work| [1]).edge(work, END);
    });
    is_placed(&node.await, "work", "work#0", "once the cause is mended, resume");
    let handler = error_of(|g| {
        let breaks = g.node("breaks", |_: Arc<Work>| async { broken() });
        let recover = g.handler("recover", |_: Failed<Arc<Work>>| async { broken() });
        g.edge(START, breaks)
            .edge(breaks, END)
            .on_error(breaks, recover)
            .edge(recover, END);
    });
    is_placed(
        &handler.await,
        "breaks",
        "recover#breaks",
        "once the cause is mended, resume",
    );
    let conflict = error_of(|g| {
        for name in ["a", "b"] {
            let node = g.node(name, |_: Arc<Work>| async {
                Ok(Work::update().note("written".to_owned()))
            });
            g.edge(START, node).edge(node, END);
        }
    });
    let conflict = conflict.await;
    is_placed(&conflict, "a", "a", "give the field a reducer that merges");
    assert!(conflict.to_string().contains("`b`"), "{conflict}");
    let undeclared = error_of(|g| {
        let writes = g.node("writes", |_: Arc<Work>| async {
            Ok(Work::update().note("written".to_owned()))
        });
        g.writes(writes, ["log"]).edge(START, writes).edge(writes, END);
    });
    is_placed(&undeclared.await, "writes", "writes", "add it there by `g.writes(..)`");
    let panic = error_of(|g| {
        let leads = g.node("leads", |_: Arc<Work>| async { Ok(()) });
        g.edge(START, leads);
        g.branch(
            leads,
            |work: &Work| {
                assert!(work.log.len() > 5, "no way");
                Way::On
            },
            |Way::On| to(END),
        );
    });
    is_placed(&panic.await, "leads", "leads", "mend the closure or reducer and resume");
    let late = error_of(|g| {
        let waits = g.node("waits", |_: Arc<Work>| pending::<Result<WorkUpdate, NodeError>>());
        g.step_timeout(Duration::from_secs(1))
            .edge(START, waits)
            .edge(waits, END);
    });
    // A task in a list is quoted as such.
    let late = late.await;
    assert!(late.to_string().contains(r#"["waits"]"#), "{late}");
    assert_eq!((late.node(), late.checkpoint()), (Some("waits"), Some(Seq(2))));
    assert!(
        late.to_string().contains("thread acme/t (from checkpoint 2)")
            && late.to_string().contains("raise `step_timeout`")
    );
}

#[tokio::test]
async fn a_place_that_no_node_has_is_told_with_who_led_there() {
    let mut g = DynamicBuilder::new("places", Channels::new([("log", Merge::Append)]).unwrap());
    g.node("leads", |_: TaskInput, _| async {
        let goto = vec![Goto::Send("nowhere".to_owned(), json!({}))];
        Ok(Reply {
            goto,
            ..Reply::default()
        })
    });
    g.edge("START", "leads");
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), JsonInput::new()).await.unwrap_err();
    let again = graph.run(&thread("t"), JsonInput::new()).on_pending(OnPending::Discard);
    let error = again.await.unwrap_err();
    is_placed(&error, "leads", "leads", "lead it to one, or add the node");
}

#[tokio::test]
async fn without_a_store_there_is_no_checkpoint_and_nothing_to_resume() {
    let mut g = Graph::<Work>::builder("places");
    let breaks = g.node("breaks", |_: Arc<Work>| async { broken() });
    g.edge(START, breaks).edge(breaks, END);
    let error = g
        .build()
        .unwrap()
        .run(&thread("t"), WorkInput::new())
        .await
        .unwrap_err();
    assert_eq!((error.node(), error.checkpoint()), (Some("breaks"), None));
    assert_eq!(
        error.to_string(),
        "node `breaks` failed in step 1 of thread acme/t after 1 attempt(s) (once the cause is mended, run it again): broken"
    );
}

#[tokio::test]
async fn an_error_inside_names_its_own_place_and_that_of_its_host() {
    let inner = || {
        let mut g = Graph::<Work>::builder("inner");
        let breaks = g.node("breaks", |_: Arc<Work>| async { broken() });
        g.edge(START, breaks).edge(breaks, END);
        g.build().unwrap()
    };
    let error = error_of(|g| {
        let host = g.node("host", inner().as_node::<WorkInput, Arc<Work>>());
        g.edge(START, host).edge(host, END);
    });
    let error = error.await;
    is_placed(&error, "host", "host", "resume");
    let mut next = error.source();
    let inside = loop {
        let source = next.unwrap();
        if let Some(inside) = source.downcast_ref::<RunError>() {
            break inside;
        }
        next = source.source();
    };
    assert_eq!(
        (inside.node(), inside.task(), inside.code()),
        (Some("breaks"), Some("breaks"), "run::node")
    );
    assert!(!inside.thread().unwrap().namespace.is_root() && inside.checkpoint().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_run_names_its_thread() {
    let mut g = Graph::<Work>::builder("places");
    let waits = g.node("waits", |_: Arc<Work>| async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        Ok(())
    });
    g.edge(START, waits).edge(waits, END);
    let graph = g.build().unwrap();
    let slow = graph
        .run(&thread("t"), WorkInput::new())
        .time_limit(Duration::from_secs(1))
        .await
        .unwrap_err();
    let long = graph
        .run(&thread("t"), WorkInput::new())
        .step_limit(0)
        .await
        .unwrap_err();
    for (error, code) in [(slow, "run::time_limit"), (long, "run::step_limit")] {
        assert_eq!((error.code(), error.thread()), (code, Some(&thread("t"))));
        assert!(error.to_string().contains("thread acme/t"), "{error}");
    }
}
