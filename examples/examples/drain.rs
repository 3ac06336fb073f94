//! A process that is asked to stop drains its runs: each ends its step and is saved; the next process goes on.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Append, Drain, END, Graph, Memory, Outcome, START, State, TenantId, ThreadId, ThreadKey};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Report {
    #[state(reducer = Append)]
    pages: Vec<String>,
}

/// Three nodes; while the second runs, somebody asks the process to stop.
fn report(drain: &Drain) -> Result<Graph<Report>, stepgraph::BuildErrors> {
    let mut g = Graph::<Report>::builder("report");
    let drain = drain.clone();
    let gather = g.node("gather", |_: Arc<Report>| async { Ok(page("gathered")) });
    let write = g.node("write", move |_: Arc<Report>| {
        drain.request();
        async { Ok(page("written")) }
    });
    let send = g.node("send", |_: Arc<Report>| async { Ok(page("sent")) });
    g.edge(START, gather)
        .edge(gather, write)
        .edge(write, send)
        .edge(send, END);
    g.build()
}

fn page(text: &str) -> ReportUpdate {
    println!("  {text}");
    Report::update().pages([text.to_owned()])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let drain = Drain::new();
    let graph = report(&drain)?.checkpointer(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());

    println!("the first process:");
    let outcome = graph.run(&thread, ReportInput {}).drain(&drain).await?;
    assert!(matches!(outcome, Outcome::Drained));

    println!("the next process:");
    for cut_off in graph.unfinished(100).await? {
        let outcome = graph.resume(&cut_off).await?;
        let pages = outcome.done().map(|report| report.pages).unwrap_or_default();
        assert_eq!(pages, ["gathered", "written", "sent"]);
    }
    Ok(())
}
