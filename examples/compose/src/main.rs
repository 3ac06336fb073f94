//! A graph of one's own, made from nodes of Stepgraph, served as threads and runs. The README says how to drive it.

mod desk;

use std::{env, error::Error, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use desk::{DeskEvent, desk};
use stepgraph::TenantId;
use stepgraph_checkpoint::Sqlite;
use stepgraph_nodes::{
    domains::Domains,
    generate::ChatSettings,
    prompt::{PromptLimits, Scope},
    service::{
        Chunk, DocumentId, KnowledgeBase, ModelName, VectorStore,
        embedded::{Extractive, SqliteRecords, SqliteVectors},
    },
};
use stepgraph_server::{FixedKeys, Heard, Serve, Server, app::open_database};

const TENANT: &str = "acme";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let folder = PathBuf::from(env::args().nth(1).ok_or("usage: compose DATA-FOLDER [ADDRESS]")?);
    let address = env::args().nth(2).unwrap_or_else(|| "127.0.0.1:8100".to_owned());
    let key = env::var("DESK_KEY").map_err(|_| "set DESK_KEY to the key that callers send as x-api-key")?;
    tokio::fs::create_dir_all(&folder).await?;

    // The embedded services: no server, no key, everything in the data folder.
    let vectors = Arc::new(SqliteVectors::open(folder.join("vectors.db")).await?);
    let database = open_database(&folder.join("desk.db")).await?;
    index(&*vectors).await?;

    let graph = desk(vectors, folder.join("outbox.txt"))?;
    let served = Serve::with_events(graph, heard)
        .input_schema()
        .prepare(async |run, _whom| Ok(run.provide(settings())));

    println!("the desk is open at http://{address}");
    Server::builder()
        .graph(served)
        .checkpointer(Sqlite::new(database.clone()).await?)
        .threads(SqliteRecords::open(database).await?)
        .authenticator(FixedKeys::new([(TENANT, key)])?)
        .merge(Router::new().route("/opening-hours", get("Monday to Friday, 9 to 17")))
        .serve(address)
        .await?;
    Ok(())
}

/// The model answers with sentences of the documents, so it needs no key of a provider.
fn settings() -> ChatSettings {
    ChatSettings {
        model: Arc::new(Extractive::new()),
        name: ModelName::new("extractive"),
        system_prompt: None,
        scope: Scope::Documents,
        prompt: PromptLimits::default(),
        link_hosts: Domains::default(),
        completion_tokens_max: 500,
        temperature: None,
        fallback: None,
        prices: Arc::default(),
        answer_by: tokio::time::Instant::now() + Duration::from_secs(20),
    }
}

/// Pieces of the answer are tokens to those who stream; how much was found is an event of our own.
fn heard(event: DeskEvent) -> Heard {
    match event {
        DeskEvent::Searched(passages) => Heard::Custom(passages.into()),
        DeskEvent::Token(text) if text.is_empty() => Heard::Nothing,
        DeskEvent::Token(text) => Heard::Token(text),
    }
}

/// One small document. The same content again changes nothing.
async fn index(vectors: &dyn VectorStore) -> Result<(), Box<dyn Error>> {
    let tenant = TenantId::authenticated(TENANT)?;
    let base = KnowledgeBase {
        language: "en".to_owned(),
        embedding: None,
    };
    vectors.prepare(&tenant, &base).await?;
    let texts = [
        "The warranty of every kettle lasts 36 months from the day of purchase.",
        "A parcel within the country takes two to three working days.",
    ];
    let chunks: Vec<Chunk> = (0..)
        .zip(texts)
        .map(|(index, text)| Chunk {
            index,
            title: "Shop rules".to_owned(),
            text: text.to_owned(),
            dense: None,
        })
        .collect();
    vectors.replace(&tenant, &DocumentId::new("rules"), &chunks).await?;
    Ok(())
}
