//! Back to an earlier checkpoint, on a branch of its own; what happened before stays where it was.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Memory,
    checkpoint::{At, MAIN, Page},
    prelude::*,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Story {
    #[state(input, reducer = Append)]
    lines: Vec<String>,
}

fn story() -> Result<Graph<Story>, stepgraph::BuildErrors> {
    let mut g = Graph::<Story>::builder("story");
    let write = g.node("write", |story: Arc<Story>| async move {
        Ok(Story::update().lines([format!("line {}", story.lines.len() + 1)]))
    });
    let end = g.node("end", |_: Arc<Story>| async {
        Ok(Story::update().lines(["the end".to_owned()]))
    });
    g.edge(START, write).edge(write, end).edge(end, END);
    g.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = story()?.checkpointer(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::new("story-1")?);
    let lines = vec!["once upon a time".to_owned()];
    graph.run(&thread, StoryInput { lines }).await?;

    let history = graph.history(&thread, Page::default()).await?;
    let before_the_end = history
        .iter()
        .find(|entry| entry.next == ["end"])
        .ok_or("`end` was never due")?;
    graph.fork(&thread, At::Seq(before_the_end.seq), "longer").await?;
    let more = Story::update().lines(["and then".to_owned()]);
    graph.update(&thread, At::Head, more, "write").await?;
    let longer = graph.resume(&thread).await?.done().ok_or("the story has not ended")?;
    assert_eq!(longer.lines, ["once upon a time", "line 2", "and then", "the end"]);

    graph.switch(&thread, MAIN).await?;
    let main = graph.state(&thread, At::Head).await?.ok_or("the thread is gone")?;
    assert_eq!(main.state.lines, ["once upon a time", "line 2", "the end"]);
    Ok(())
}
