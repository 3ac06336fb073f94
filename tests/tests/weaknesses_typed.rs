//! The measured weaknesses that only a typed graph shows to be gone; the others are in `weaknesses.rs`.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{future::pending, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Context, END, Graph, Memory, NodeError, OnFailure, START, State, TaskState, TenantId, ThreadId, ThreadKey,
    checkpoint::At,
};
use tokio::sync::Notify;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
}

/// `fails` beside `waits`, which goes on once `fails` has begun, or never.
fn pair(policy: OnFailure) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("pair");
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let fails = g.node("fails", move |_: Arc<Work>, _: Context<()>| {
        told.notify_one();
        async { Err::<WorkUpdate, _>(NodeError::terminal("it is broken")) }
    });
    let waits = g.node("waits", move |_: Arc<Work>, _: Context<()>| {
        let begun = Arc::clone(&begun);
        async move {
            begun.notified().await;
            if policy == OnFailure::CancelSiblings {
                pending::<()>().await;
            }
            Ok(Work::update().log(["waited".to_owned()]))
        }
    });
    g.on_failure(policy);
    for node in [fails, waits] {
        g.edge(START, node).edge(node, END);
    }
    g.build().unwrap()
}

async fn tasks(policy: OnFailure) -> Vec<TaskState> {
    let graph = pair(policy).checkpointer(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("t").unwrap());
    let error = graph.run(&thread, WorkInput::new()).await.unwrap_err();
    assert_eq!(error.code(), "run::node");
    graph.state(&thread, At::Head).await.unwrap().unwrap().tasks
}

#[tokio::test]
async fn w03_siblings_of_a_failure_finish_or_are_cut_off_as_the_graph_says_and_none_is_recorded_as_failed() {
    let finished = tasks(OnFailure::LetFinish).await;
    assert!(finished[0].error.is_some() && !finished[0].finished);
    assert!(finished[1].finished && finished[1].error.is_none() && !finished[1].cut_off);

    let cut_off = tasks(OnFailure::CancelSiblings).await;
    assert!(cut_off[0].error.is_some() && !cut_off[0].cut_off);
    assert!(cut_off[1].cut_off && cut_off[1].error.is_none() && !cut_off[1].finished);
}
