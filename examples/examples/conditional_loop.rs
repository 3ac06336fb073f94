//! A draft goes back to its writer until it is short enough: a branch that leads back is a loop.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{END, Graph, Route, START, State, Sum, TenantId, ThreadId, ThreadKey, to};

#[derive(State, Clone, Serialize, Deserialize)]
struct Draft {
    #[state(input)]
    text: String,
    #[state(reducer = Sum)]
    rounds: u32,
}

#[derive(Route, Clone, Copy)]
enum Verdict {
    TooLong,
    Short,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Draft>::builder("shorten");
    let shorten = g.node("shorten", |draft: Arc<Draft>| async move {
        let words: Vec<_> = draft.text.split(' ').collect();
        let kept = words.len().div_ceil(2);
        println!("round {}: {} words", draft.rounds + 1, words.len());
        Ok(Draft::update()
            .text(words.into_iter().take(kept).collect::<Vec<_>>().join(" "))
            .rounds(1_u32))
    });
    g.edge(START, shorten);
    g.branch(
        shorten,
        |draft: &Draft| {
            if draft.text.len() > 24 {
                Verdict::TooLong
            } else {
                Verdict::Short
            }
        },
        |verdict| match verdict {
            Verdict::TooLong => to(shorten),
            Verdict::Short => to(END),
        },
    );
    let graph = g.build()?;

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let text = "a kettle boils water and a good kettle boils it without being told to do so twice";
    let outcome = graph.run(&thread, DraftInput::new(text)).step_limit(10).await?;
    let text_now = outcome.done().map(|draft| draft.text);
    println!("{text_now:?}");
    assert!(text_now.is_some_and(|text| text.len() <= 24));

    // A limit that is too low is an error that says so, never a silent half of the work.
    let stopped = graph.run(&thread, DraftInput::new(text)).step_limit(1).await.err();
    println!("with one step: {stopped:?}");
    assert_eq!(stopped.map(|error| error.code()), Some("run::step_limit"));
    Ok(())
}
