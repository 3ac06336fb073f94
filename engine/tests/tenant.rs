//! Tenants never meet, whatever their threads are called.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    #[expect(dead_code, reason = "tenants are named here")]
    pub(crate) mod threads;
}

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Context, END, Graph, Memory, Outcome, RunError, START, State,
    checkpoint::{At, Page},
};
use support::threads::thread_of;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Notes {
    #[state(input, reducer = Append)]
    notes: Vec<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

fn note(text: &str) -> NotesInput {
    NotesInput {
        notes: vec![text.to_owned()],
    }
}

fn graph(asks: bool) -> Graph<Notes> {
    let mut g = Graph::<Notes>::builder("notes");
    let node = g.node("node", move |_: Arc<Notes>, ctx: Context<()>| {
        let sure = if asks { ctx.ask(Sure).map(|_| ()) } else { Ok(()) };
        ready(sure.map(|()| Notes::update().notes([ctx.tenant().to_string()])))
    });
    g.edge(START, node).edge(node, END);
    g.build().unwrap().checkpointer(Memory::new())
}

#[tokio::test]
async fn one_thread_id_under_two_tenants_is_two_threads() {
    let graph = graph(false);
    let (a, b) = (thread_of("a", "same"), thread_of("b", "same"));
    graph.run(&a, note("of a")).await.unwrap();
    assert!(graph.state(&b, At::Head).await.unwrap().is_none());
    assert!(graph.history(&b, Page::default()).await.unwrap().is_empty());
    assert!(matches!(
        graph.resume(&b).await.unwrap_err(),
        RunError::UnknownThread { .. }
    ));
    let state = graph.run(&b, note("of b")).await.unwrap().done().unwrap();
    assert_eq!(state.notes, ["of b", "b"]);
    let state = graph.run(&a, note("again")).await.unwrap().done().unwrap();
    assert_eq!(state.notes, ["of a", "a", "again", "a"]);
}

#[tokio::test]
async fn a_checkpoints_number_and_id_name_nothing_under_another_tenant() {
    let graph = graph(false);
    let (a, b) = (thread_of("a", "same"), thread_of("b", "same"));
    graph.run(&a, note("of a")).await.unwrap();
    graph.run(&b, note("of b")).await.unwrap();
    let entry = graph.state(&a, At::Head).await.unwrap().unwrap().entry;
    assert!(graph.state(&b, At::Id(entry.id)).await.unwrap().is_none());
    assert_eq!(
        graph.state(&b, At::Seq(entry.seq)).await.unwrap().unwrap().state.notes,
        ["of b", "b"]
    );
}

#[tokio::test]
async fn an_answer_reaches_the_question_of_its_own_tenant_only() {
    let graph = graph(true);
    let (a, b) = (thread_of("a", "same"), thread_of("b", "same"));
    for key in [&a, &b] {
        assert!(matches!(graph.run(key, note("")).await.unwrap(), Outcome::Asked(_)));
    }
    assert!(graph.resume(&a).answer::<Sure>(&true).await.unwrap().done().is_some());
    assert_eq!(graph.state(&b, At::Head).await.unwrap().unwrap().questions.len(), 1);
}
