//! A graph as a node of another, with a state of its own; what its nodes emit leaves under the host's name.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, BuildErrors, Context, END, EventKind, FromState, Graph, ReaderGone, START, State, TenantId, ThreadId,
    ThreadKey, events,
};

/// The state inside.
#[derive(State, Clone, Serialize, Deserialize)]
#[state(event = String)]
struct Search {
    #[state(input)]
    query: String,
    #[state(reducer = Append)]
    hits: Vec<String>,
}

/// The state outside.
#[derive(State, Clone, Serialize, Deserialize)]
#[state(event = String)]
struct Chat {
    #[state(input)]
    question: String,
    answer: Option<String>,
}

/// The search is started with the chat's question.
impl FromState<Chat> for SearchInput {
    fn from_state(chat: &Arc<Chat>) -> Self {
        Self::new(chat.question.as_str())
    }
}

/// What the chat takes from the search's last state.
impl From<Arc<Search>> for ChatUpdate {
    fn from(search: Arc<Search>) -> Self {
        Chat::update().answer(search.hits.join(" and "))
    }
}

fn search() -> Result<Graph<Search>, BuildErrors> {
    let mut g = Graph::<Search>::builder("search");
    for shelf in ["manual", "leaflet"] {
        let node = g.node(shelf, move |search: Arc<Search>, ctx: Context<String>| async move {
            ctx.emit(format!("looking for {} in the {shelf}", search.query)).await;
            Ok(Search::update().hits([format!("the {shelf}")]))
        });
        g.edge(START, node).edge(node, END);
    }
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Chat>::builder("chat");
    let retrieve = g.node("retrieve", search()?.as_node::<SearchInput, Arc<Search>>());
    g.edge(START, retrieve).edge(retrieve, END);

    let (sender, mut reader) = events(16, ReaderGone::Finish);
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let outcome = g
        .build()?
        .run(&thread, ChatInput::new("lime scale"))
        .events(sender)
        .await?;
    while let Some(event) = reader.next().await {
        if let EventKind::Custom { node, event } = event.kind {
            println!("{node}: {event}");
        }
    }
    let answer = outcome.done().and_then(|chat| chat.answer);
    println!("{answer:?}");
    assert_eq!(answer.as_deref(), Some("the leaflet and the manual"));
    Ok(())
}
