//! A graph with a memory of its own inside a node, and a node inside that hands over to the graph around it.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Command, Context, END, Ended, FromState, Graph, Memory, Route, START, State, TenantId, ThreadId, ThreadKey,
    to,
};

#[derive(State, Clone, Serialize, Deserialize)]
struct Desk {
    #[state(input)]
    question: String,
    #[state(reducer = Append)]
    said: Vec<String>,
}

impl FromState<Desk> for DeskInput {
    fn from_state(desk: &Arc<Desk>) -> Self {
        Self {
            question: desk.question.clone(),
        }
    }
}

#[derive(Route, Clone, Copy)]
enum Next {
    Done,
    HandOver,
}

fn specialist() -> Result<Graph<Desk>, stepgraph::BuildErrors> {
    let mut g = Graph::<Desk>::builder("specialist");
    let look = g.node("look", |desk: Arc<Desk>, ctx: Context<()>| async move {
        if desk.question.contains("invoice") {
            return Err(ctx.leave(&"accounting"));
        }
        let answer = format!("answer {} to `{}`", desk.said.len() + 1, desk.question);
        Ok(Desk::update().said([answer]))
    });
    g.edge(START, look).edge(look, END);
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Desk>::builder("desk");
    let specialist = specialist()?.as_node::<DeskInput, Arc<Desk>>().accumulating();
    let ask = g.router(
        "ask",
        specialist.or_left(|end: Ended<Arc<Desk>, String>| match end {
            Ended::Done(desk) => Command {
                update: Desk::update().said(Vec::from_iter(desk.said.last().cloned())),
                goto: Next::Done,
            },
            Ended::Left(to) => Command {
                update: Desk::update().said([format!("over to {to}")]),
                goto: Next::HandOver,
            },
        }),
    );
    let hand_over = g.node("hand_over", |_: Arc<Desk>| async {
        Ok(Desk::update().said(["accounting speaking".to_owned()]))
    });
    g.edge(START, ask).edge(hand_over, END);
    g.routes(ask, |next| match next {
        Next::Done => to(END),
        Next::HandOver => to(hand_over),
    });
    let graph = g.build()?.checkpointer(Memory::new());

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let mut said = Vec::new();
    for question in ["size", "an invoice", "colour"] {
        let question = question.to_owned();
        said = graph
            .run(&thread, DeskInput { question })
            .await?
            .done()
            .ok_or("no end")?
            .said;
    }
    println!("{said:?}");
    let expected = [
        "answer 1 to `size`",
        "over to accounting",
        "accounting speaking",
        "answer 2 to `colour`",
    ];
    assert_eq!(said, expected);
    Ok(())
}
