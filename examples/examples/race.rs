//! The first of two sources wins and the other is cancelled; a join in time goes on with what there is.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Context, END, Graph, GraphBuilder, JoinRule, NodeId, START, State, TenantId, ThreadId, ThreadKey,
};

#[derive(State, Clone, Serialize, Deserialize)]
struct Search {
    #[state(reducer = Append)]
    found: Vec<String>,
}

/// Finds something after a while.
fn source(g: &mut GraphBuilder<Search>, name: &'static str, wait: Duration) -> NodeId<Search> {
    let source = g.node(name, move |_: Arc<Search>| async move {
        tokio::time::sleep(wait).await;
        Ok(Search::update().found([format!("found by {name}")]))
    });
    g.edge(START, source);
    source
}

fn show(g: &mut GraphBuilder<Search>) -> NodeId<Search> {
    let show = g.node("show", |_: Arc<Search>, ctx: Context<()>| async move {
        Ok(Search::update().found([format!("shown: {}", ctx.arrived().join(", "))]))
    });
    g.edge(show, END);
    show
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (soon, never) = (Duration::from_millis(10), Duration::from_hours(1));

    let mut g = Graph::<Search>::builder("race");
    let (cache, web) = (source(&mut g, "cache", soon), source(&mut g, "web", never));
    let shown = show(&mut g);
    g.race([cache, web], shown);
    let race = g.build()?;

    let mut g = Graph::<Search>::builder("in_time");
    let [files, mail] = ["files", "mail"].map(|name| source(&mut g, name, soon));
    let web = source(&mut g, "web", never);
    let shown = show(&mut g);
    g.join_when(
        JoinRule::all().within(Duration::from_millis(500)),
        [files, mail, web],
        shown,
    );
    let in_time = g.build()?;

    for (graph, last) in [(race, "shown: cache"), (in_time, "shown: files, mail")] {
        let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
        let search = graph.run(&thread, SearchInput::new()).await?.done().ok_or("no end")?;
        println!("{}: {:?}", graph.name(), search.found);
        assert_eq!(search.found.last().map(String::as_str), Some(last));
    }
    Ok(())
}
