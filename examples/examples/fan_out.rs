//! One worker for each item, side by side; their updates merge in the order of the items, whoever ends first.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, START, State, Sum, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Serialize, Deserialize)]
struct Count {
    #[state(input)]
    pages: Vec<String>,
    #[state(reducer = Append)]
    lines: Vec<String>,
    #[state(reducer = Sum)]
    words: usize,
}

/// What one worker is given.
#[derive(Clone, Serialize, Deserialize)]
struct Page {
    number: usize,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Count>::builder("count_words");
    let count = g.worker("count", |page: Page| async move {
        // The longer a page, the longer it takes.
        tokio::time::sleep(Duration::from_millis(page.text.len() as u64)).await;
        println!("page {} is done", page.number);
        let words = page.text.split_whitespace().count();
        Ok(Count::update()
            .words(words)
            .lines([format!("page {}: {words}", page.number)]))
    });
    let report = g.node("report", |count: Arc<Count>| async move {
        println!("{:?}, {} words in all", count.lines, count.words);
        Ok(())
    });
    g.fan_out(START, count, |state: &Count| {
        let pages = state.pages.clone().into_iter().enumerate();
        pages.map(|(number, text)| Page { number, text })
    });
    g.edge(count, report).edge(report, END);
    let graph = g.build()?;

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let pages = ["fill the kettle with fresh water", "switch it on", "wait"].map(str::to_owned);
    let outcome = graph.run(&thread, CountInput::new(pages)).await?;
    // In the order of the pages, whichever was done first.
    let lines = outcome.done().map(|count| count.lines).unwrap_or_default();
    assert_eq!(lines, ["page 0: 6", "page 1: 3", "page 2: 1"]);
    Ok(())
}
