//! Items of a fan-out that fail are collected, and the run goes on with the others.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, END, FanOutPolicy, Graph, NodeError, START, State, Sum, TenantId, Terminal, ThreadId, ThreadKey,
};

#[derive(State, Clone, Serialize, Deserialize)]
struct Totals {
    #[state(input)]
    lines: Vec<String>,
    #[state(reducer = Sum)]
    total: u64,
    #[state(reducer = Append)]
    rejected: Vec<String>,
    report: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Totals>::builder("totals");
    let add = g.worker("add", |line: String| async move {
        let number: u64 = line.trim().parse().terminal()?;
        Ok::<_, NodeError>(Totals::update().total(number))
    });
    let report = g.node("report", |totals: Arc<Totals>| async move {
        let (total, rejected) = (totals.total, totals.rejected.len());
        Ok(Totals::update().report(format!("{total}, {rejected} rejected")))
    });
    g.fan_out(START, add, |totals: &Totals| totals.lines.clone());
    g.fan_out_policy(
        add,
        FanOutPolicy::collect(|failure| {
            Totals::update().rejected([format!("line {}: {}", failure.index + 1, failure.message)])
        }),
    );
    g.join([add], report).edge(report, END);
    let graph = g.build()?;

    for (lines, expected) in [(vec!["1", "two", "3"], "4, 1 rejected"), (vec![], "0, 0 rejected")] {
        let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
        let input = TotalsInput {
            lines: lines.into_iter().map(str::to_owned).collect(),
        };
        let totals = graph.run(&thread, input).await?.done().ok_or("no end")?;
        println!("{:?}, {:?}", totals.report, totals.rejected);
        assert_eq!(totals.report.as_deref(), Some(expected));
    }
    Ok(())
}
