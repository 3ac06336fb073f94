//! The exported threads of `tests/fixtures/threads`: every later program reads them into either store, goes on where they
//! stopped, and comes to the same states.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::TryStreamExt;
use stepgraph::{
    Graph, Memory, Replayed, RunError, State, ThreadKey,
    checkpoint::{At, Checkpointer},
};
use stepgraph_nodes::service::embedded::Extractive;
use stepgraph_tests::{
    House,
    fixtures::{CHAT_CUT_OFF, CHAT_TWO_TURNS, INGEST_FINISHED, MAKER, make, recording},
    session, settings, tenant,
};

const ALL: [&str; 3] = [CHAT_CUT_OFF, CHAT_TWO_TURNS, INGEST_FINISHED];

/// As today's graphs leave them.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/threads/2")
}

/// As the chat graph left them before it knew follow-up questions, and with another prompt.
fn older() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/threads/1")
}

fn lines(directory: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// An empty house, with its threads in memory or, as it is built, in SQLite.
async fn house(folder: &Path, in_memory: bool) -> House {
    let mut house = House::open(folder).await.unwrap();
    if in_memory {
        let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
        house.chat = house.chat.shared_checkpointer(store.clone());
        house.ingest = house.ingest.shared_checkpointer(store);
    }
    recording(house)
}

fn thread(name: &str) -> ThreadKey {
    session(&tenant("reader"), name)
}

/// Imports the lines and exports them as they were.
async fn import<S: State>(graph: &Graph<S>, directory: &Path, name: &str) -> ThreadKey {
    let (key, lines) = (thread("imported"), lines(directory, name));
    graph.import(&key, &lines).await.unwrap();
    let again: Vec<String> = graph.export(&key).try_collect().await.unwrap();
    // The first line says which graph has exported them: an older one's has another fingerprint.
    let same = if *directory == older() { 1.. } else { 0.. };
    assert_eq!(again.get(same.clone()), lines.get(same), "{name}");
    key
}

fn agrees(replayed: &Replayed, checkpoints: u64, bodies: u64) {
    assert_eq!(replayed.divergence, None, "{replayed}");
    assert_eq!((replayed.checkpoints, replayed.bodies), (checkpoints, bodies));
}

/// The chat whose second turn was cut off.
async fn goes_on_where_it_was_cut_off(directory: &Path, in_memory: bool) {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path(), in_memory).await;
    let key = import(&house.chat, directory, CHAT_CUT_OFF).await;
    agrees(&house.chat.replay(&key).await.unwrap(), 6, 0);
    let refused = house.ask(&key, "and now?").await.unwrap_err();
    assert!(matches!(refused, RunError::Pending { .. }), "{refused}");

    // The store of this house is empty: what was found before the cut is in the thread.
    let resumed = house.chat.resume(&key).provide(settings(Arc::new(Extractive)));
    let state = resumed.await.unwrap().done().unwrap();
    assert!(state.answer().unwrap().text.contains("two litres"), "{state:?}");
    assert_eq!(state.messages().len(), 4);
    let logged = house.services.log.session(&key.tenant, "cut-off", 10).await.unwrap();
    assert_eq!(logged.len(), 1, "the turn that was resumed");
    if *directory != older() {
        chat_agrees(&house, &key).await;
    }
}

/// A chat of two whole turns comes out as recorded, by its outputs and by its nodes.
async fn chat_agrees(house: &House, key: &ThreadKey) {
    agrees(&house.chat.replay(key).await.unwrap(), 8, 0);
    let replay = house.chat.replay(key).bodies();
    agrees(&replay.provide(settings(Arc::new(Extractive))).await.unwrap(), 8, 6);
}

async fn takes_another_turn(directory: &Path, in_memory: bool) {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path(), in_memory).await;
    let key = import(&house.chat, directory, CHAT_TWO_TURNS).await;
    if *directory == older() {
        agrees(&house.chat.replay(&key).await.unwrap(), 8, 0);
        let bodies = house.chat.replay(&key).bodies().provide(settings(Arc::new(Extractive)));
        let divergence = bodies.await.unwrap().divergence.unwrap().to_string();
        assert!(
            divergence.contains("generate"),
            "today's prompt is another: {divergence}"
        );
    } else {
        chat_agrees(&house, &key).await;
    }
    let state = house.ask(&key, "how long is the warranty?").await.unwrap();
    assert_eq!(state.messages().len(), 6);
}

async fn is_ingested(directory: &Path, in_memory: bool) {
    let folder = tempfile::tempdir().unwrap();
    let house = house(folder.path(), in_memory).await;
    let key = import(&house.ingest, directory, INGEST_FINISHED).await;
    agrees(&house.ingest.replay(&key).await.unwrap(), 5, 0);
    let state = house.ingest.state(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(state.state.chunks(), Some(1));
}

#[tokio::test]
async fn a_chat_that_was_cut_off_goes_on_in_memory() {
    goes_on_where_it_was_cut_off(&kept(), true).await;
}

#[tokio::test]
async fn a_chat_that_was_cut_off_goes_on_in_sqlite() {
    goes_on_where_it_was_cut_off(&kept(), false).await;
}

#[tokio::test]
async fn a_chat_of_two_turns_is_replayed_and_takes_another_in_memory() {
    takes_another_turn(&kept(), true).await;
}

#[tokio::test]
async fn a_chat_of_two_turns_is_replayed_and_takes_another_in_sqlite() {
    takes_another_turn(&kept(), false).await;
}

#[tokio::test]
async fn chats_of_an_older_graph_go_on_in_todays() {
    goes_on_where_it_was_cut_off(&older(), true).await;
    goes_on_where_it_was_cut_off(&older(), false).await;
    takes_another_turn(&older(), true).await;
    takes_another_turn(&older(), false).await;
}

#[tokio::test]
async fn an_ingestion_that_has_ended_is_replayed_in_memory() {
    is_ingested(&kept(), true).await;
}

#[tokio::test]
async fn an_ingestion_that_has_ended_is_replayed_in_sqlite() {
    is_ingested(&kept(), false).await;
}

#[tokio::test]
async fn what_is_made_today_is_read_like_what_is_kept() {
    let made = tempfile::tempdir().unwrap();
    make(made.path()).await.unwrap();
    let files = |directory: &Path| -> BTreeSet<_> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(files(made.path()), files(&kept()));
    goes_on_where_it_was_cut_off(made.path(), false).await;
    takes_another_turn(made.path(), false).await;
    is_ingested(made.path(), false).await;
}

#[test]
fn the_kept_threads_do_not_say_whose_they_were() {
    for name in ALL {
        let lines = lines(&kept(), name);
        assert!(lines.len() > 5, "{name}");
        for told in [MAKER, "/tmp", "/home", "/work"] {
            assert!(lines.iter().all(|line| !line.contains(told)), "{name} says {told}");
        }
    }
}
