//! The measured weaknesses that only a typed graph shows to be gone; the others are in `weaknesses.rs`.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    future::{pending, ready},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Command, Context, END, Graph, Memory, NodeError, OnFailure, Route, START, State, TaskState, TenantId,
    ThreadId, ThreadKey, checkpoint::At, to,
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

fn thread(name: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(name).unwrap())
}

async fn tasks(policy: OnFailure) -> Vec<TaskState> {
    let graph = pair(policy).checkpointer(Memory::new());
    let thread = thread("t");
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

#[derive(Route, Clone, Copy)]
enum Way {
    On,
    Stop,
}

fn says(name: &'static str) -> impl Fn(Arc<Work>) -> std::future::Ready<Result<WorkUpdate, NodeError>> {
    move |_| ready(Ok(Work::update().log([name.to_owned()])))
}

#[tokio::test]
async fn w19_a_typed_routers_choice_is_all_there_is_and_what_goes_on_besides_says_so() {
    // A router to which an edge is added does not compile: `engine/tests/ui/static_edge_from_router.rs`.
    for (goto, expected) in [(Way::Stop, vec!["choose"]), (Way::On, vec!["choose", "on"])] {
        let mut g = Graph::<Work>::builder("router");
        let choose = g.router("choose", move |_: Arc<Work>| {
            let update = Work::update().log(["choose".to_owned()]);
            ready(Ok(Command { update, goto }))
        });
        let on = g.node("on", says("on"));
        g.edge(START, choose).edge(on, END);
        g.routes(choose, |way| match way {
            Way::On => to(on),
            Way::Stop => to(END),
        });
        let state = g.build().unwrap().run(&thread("t"), WorkInput::new()).await.unwrap();
        assert_eq!(state.done().unwrap().log, expected);
    }
    // What is to follow its edges whatever it chooses is another kind of node.
    for (also, expected) in [
        (None, vec!["choose", "edge"]),
        (Some(Way::On), vec!["choose", "edge", "on"]),
    ] {
        let mut g = Graph::<Work>::builder("also");
        let choose = g.router_also("choose", move |_: Arc<Work>| {
            let update = Work::update().log(["choose".to_owned()]);
            ready(Ok(Command { update, goto: also }))
        });
        let (edge, on) = (g.node("edge", says("edge")), g.node("on", says("on")));
        g.edge(START, choose).edge(choose, edge).edge(edge, END).edge(on, END);
        g.routes(choose, |way| match way {
            Way::On => to(on),
            Way::Stop => to(END),
        });
        let state = g.build().unwrap().run(&thread("t"), WorkInput::new()).await.unwrap();
        assert_eq!(state.done().unwrap().log, expected);
    }
}
