//! A run that is cut off goes on in the next process, from a file: what had finished is not done again.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, NodeError, START, State, TenantId, ThreadId, ThreadKey, checkpoint::At};
use stepgraph_checkpoint::Sqlite;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Import {
    #[state(input)]
    file: String,
    #[state(reducer = Append)]
    done: Vec<String>,
}

/// Stands for a service that is down in the first process.
static STORE_IS_UP: AtomicBool = AtomicBool::new(false);

/// What each process does at its start: open the file, build the graph.
async fn process(path: &Path) -> Result<Graph<Import>, Box<dyn std::error::Error>> {
    let mut g = Graph::<Import>::builder("import");
    let parse = g.node("parse", |import: Arc<Import>| async move {
        println!("  parsing {}", import.file);
        Ok(Import::update().done(["parse".to_owned()]))
    });
    let store = g.node("store", |import: Arc<Import>| async move {
        println!("  storing what came from {:?}", import.done);
        if !STORE_IS_UP.load(Ordering::SeqCst) {
            return Err(NodeError::terminal("the vector store is down"));
        }
        Ok(Import::update().done(["store".to_owned()]))
    });
    g.edge(START, parse).edge(parse, store).edge(store, END);
    Ok(g.build()?.checkpointer(Sqlite::open(path).await?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("threads.db");
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());

    println!("first process:");
    let graph = process(&path).await?;
    if let Err(error) = graph.run(&thread, ImportInput::new("manual.pdf")).await {
        println!("  {error}");
    }
    drop(graph);

    println!("second process:");
    STORE_IS_UP.store(true, Ordering::SeqCst);
    let graph = process(&path).await?;
    let waiting = graph.state(&thread, At::Head).await?;
    println!(
        "  found the thread before {:?}",
        waiting.map(|snapshot| snapshot.entry.next)
    );
    println!("  {:?}", graph.resume(&thread).await?.done());
    Ok(())
}
