//! Makes the exported threads of `tests/fixtures/threads`: what today's programs leave behind, kept so that tomorrow's go
//! on with it. They are made anew only when the stored form changes for good, by
//! `cargo run -p stepgraph-tests --bin fixtures -- tests/fixtures/threads/2`; the older ones stay.

use std::{future::IntoFuture, path::Path, sync::Arc};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use stepgraph::{Graph, Recording, State, TenantId, ThreadKey};
use stepgraph_nodes::service::{ChatModel, ChatRequest, ChatStream, ServiceError, embedded::Extractive};
use tokio::sync::Notify;

use crate::{House, TestError, session, tenant};

/// Whose threads they were when they were made. It stands in none of the lines.
pub const MAKER: &str = "maker-of-fixtures";
/// The chat of two whole turns.
pub const CHAT_TWO_TURNS: &str = "chat_two_turns.jsonl";
/// The chat whose second turn was cut off while the model was asked.
pub const CHAT_CUT_OFF: &str = "chat_cut_off.jsonl";
/// The ingestion that came to its end.
pub const INGEST_FINISHED: &str = "ingest_finished.jsonl";

const KETTLE: &str = "The kettle holds two litres of water. The warranty lasts 36 months from the date of purchase.";

/// Makes all of them in `directory`, over whatever is there.
///
/// # Errors
/// What a graph or the file system says.
pub async fn make(directory: &Path) -> Result<(), TestError> {
    let folder = tempfile::tempdir()?;
    let house = recording(House::open(folder.path()).await?);
    let maker = tenant(MAKER);
    house.ingest_text(&maker, "kettle", KETTLE).await?;
    let ingestion = session(&maker, "document:kettle");
    write(&house.ingest, &ingestion, &directory.join(INGEST_FINISHED)).await?;

    let whole = turn(&house, &maker, "whole").await?;
    house.ask(&whole, "how much water does the kettle hold?").await?;
    write(&house.chat, &whole, &directory.join(CHAT_TWO_TURNS)).await?;

    let cut_off = turn(&house, &maker, "cut-off").await?;
    let model = Arc::new(Silent::default());
    let run = house.message(&cut_off, "how much water does the kettle hold?", model.clone());
    tokio::select! {
        biased;
        outcome = run.into_future() => return Err(format!("the model never answers, and yet: {outcome:?}").into()),
        () = model.asked.notified() => {}
    }
    write(&house.chat, &cut_off, &directory.join(CHAT_CUT_OFF)).await
}

/// The house with both graphs writing down what a replay needs.
#[must_use]
pub fn recording(house: House) -> House {
    House {
        services: house.services,
        chat: house.chat.recording(Recording::Calls),
        ingest: house.ingest.recording(Recording::Outputs),
    }
}

/// A session with one whole turn.
async fn turn(house: &House, maker: &TenantId, name: &str) -> Result<ThreadKey, TestError> {
    let thread = session(maker, name);
    house.ask(&thread, "how long is the warranty?").await?;
    Ok(thread)
}

async fn write<S: State>(graph: &Graph<S>, thread: &ThreadKey, path: &Path) -> Result<(), TestError> {
    let lines: Vec<String> = graph.export(thread).try_collect().await?;
    Ok(std::fs::write(path, lines.join("\n") + "\n")?)
}

/// A model by the extractive one's name that is asked and says nothing.
#[derive(Default)]
struct Silent {
    asked: Notify,
}

#[async_trait]
impl ChatModel for Silent {
    fn provider(&self) -> &'static str {
        Extractive.provider()
    }

    async fn chat(&self, _: &TenantId, _: ChatRequest) -> Result<ChatStream, ServiceError> {
        self.asked.notify_one();
        std::future::pending().await
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}
