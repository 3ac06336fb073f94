//! Threads that nobody reads who reads the store, and a tenant that is forgotten in every copy of it.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{
    CheckpointError, Checkpointer, END, Graph, START, State, TenantId, ThreadId, ThreadKey, checkpoint::At,
};
use stepgraph_checkpoint::{
    Sealed, Sqlite,
    seal::{MasterKeys, SqliteKeys, TenantKeys},
};

#[derive(State, Clone, Serialize, Deserialize)]
struct Patient {
    #[state(input)]
    name: String,
    greeting: String,
}

/// The store of this file, with each tenant's key beside it. The master key comes from where secrets come from.
async fn sealed(folder: &Path, file: &str) -> Result<Arc<Sealed<Sqlite>>, Box<dyn std::error::Error>> {
    let master: MasterKeys = "1:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=".parse()?;
    let keys = TenantKeys::new(master, SqliteKeys::open(folder.join("keys.db")).await?);
    Ok(Arc::new(Sealed::new(Sqlite::open(folder.join(file)).await?, keys)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = sealed(folder.path(), "threads.db").await?;
    let mut g = Graph::<Patient>::builder("greet");
    let greet = g.node("greet", |patient: Arc<Patient>| async move {
        Ok(Patient::update().greeting(format!("good morning, {}", patient.name)))
    });
    g.edge(START, greet).edge(greet, END);
    let graph = g.build()?.shared_checkpointer(store.clone());

    let acme = TenantId::authenticated("acme")?;
    let thread = ThreadKey::new(acme.clone(), ThreadId::random());
    graph.run(&thread, PatientInput::new("Ada Lovelace")).await?;
    let mut bytes = Vec::new();
    for file in ["threads.db", "threads.db-wal"] {
        bytes.extend(std::fs::read(folder.path().join(file)).unwrap_or_default());
        // A copy as a backup makes it, of the threads and not of the keys.
        std::fs::copy(
            folder.path().join(file),
            folder.path().join(file.replace("threads", "monday")),
        )?;
    }
    assert!(!bytes.windows(8).any(|part| part == b"Lovelace"));

    store.erase(&acme).await?;

    let restored = sealed(folder.path(), "monday.db").await?;
    let error = restored.get(&thread, At::Head).await.err();
    println!("{}", error.as_ref().map(ToString::to_string).unwrap_or_default());
    assert!(matches!(error, Some(CheckpointError::NoKey { .. })));
    Ok(())
}
