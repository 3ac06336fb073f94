//! The chat graph's threads, replayed with the bodies of their nodes: no service is asked, and a change of the prompt shows.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use stepgraph::{Difference, Graph, Memory, Recording, TenantId, ThreadKey, checkpoint::Checkpointer};
use stepgraph_graphs::{ChatState, FALLBACK, widget_chat};
use stepgraph_nodes::{
    Services,
    generate::ChatSettings,
    service::{
        ChatLog, ChatModel, ChatRequest, ChatStream, ChatTurn, Chunk, DocumentId, Hit, KnowledgeBase, SearchQuery,
        ServiceError, VectorStore, embedded::Extractive,
    },
};
use stepgraph_tests::{House, session, settings, tenant};

const KETTLE: &str = "The kettle holds two litres of water. The warranty lasts 36 months from the date of purchase.";

/// Every service of the chat, out of order, and how often it was asked.
#[derive(Default)]
struct Closed {
    calls: AtomicUsize,
}

impl Closed {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn refuse<T>(&self) -> Result<T, ServiceError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Err(ServiceError::Refused {
            service: "closed",
            message: "nothing is served here".to_owned(),
        })
    }
}

#[async_trait]
impl VectorStore for Closed {
    async fn prepare(&self, _: &TenantId, _: &KnowledgeBase) -> Result<KnowledgeBase, ServiceError> {
        self.refuse()
    }

    async fn knowledge_base(&self, _: &TenantId) -> Result<Option<KnowledgeBase>, ServiceError> {
        self.refuse()
    }

    async fn replace(&self, _: &TenantId, _: &DocumentId, _: &[Chunk]) -> Result<Vec<uuid::Uuid>, ServiceError> {
        self.refuse()
    }

    async fn replace_many(
        &self,
        _: &TenantId,
        _: &[(DocumentId, Vec<Chunk>)],
    ) -> Result<Vec<Vec<uuid::Uuid>>, ServiceError> {
        self.refuse()
    }

    async fn search(&self, _: &TenantId, _: &SearchQuery) -> Result<Vec<Hit>, ServiceError> {
        self.refuse()
    }

    async fn delete(&self, _: &TenantId, _: &DocumentId) -> Result<u64, ServiceError> {
        self.refuse()
    }

    async fn erase(&self, _: &TenantId) -> Result<u64, ServiceError> {
        self.refuse()
    }

    async fn count(&self, _: &TenantId) -> Result<u64, ServiceError> {
        self.refuse()
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        self.refuse()
    }
}

#[async_trait]
impl ChatLog for Closed {
    async fn write(&self, _: &TenantId, _: &ChatTurn) -> Result<(), ServiceError> {
        self.refuse()
    }

    async fn session(&self, _: &TenantId, _: &str, _: u32) -> Result<Vec<ChatTurn>, ServiceError> {
        self.refuse()
    }

    async fn delete_before(
        &self,
        _: &TenantId,
        _: stepgraph_nodes::service::Timestamp,
        _: u32,
    ) -> Result<u64, ServiceError> {
        self.refuse()
    }
}

#[async_trait]
impl ChatModel for Closed {
    // What the recorded runs were answered by: it is part of what a model is asked.
    fn provider(&self) -> &'static str {
        Extractive.provider()
    }

    async fn chat(&self, _: &TenantId, _: ChatRequest) -> Result<ChatStream, ServiceError> {
        self.refuse()
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        self.refuse()
    }
}

/// The chat graph over the services, its threads in `store`, its calls recorded.
fn chat(services: &Services, store: &Arc<dyn Checkpointer>) -> Graph<ChatState> {
    let graph = widget_chat(services).unwrap().shared_checkpointer(store.clone());
    graph.recording(Recording::Calls)
}

/// The same services, but those that the chat asks are closed.
fn closed(services: &Services) -> (Services, Arc<Closed>) {
    let closed = Arc::new(Closed::default());
    let services = Services {
        vectors: closed.clone(),
        log: closed.clone(),
        ..services.clone()
    };
    (services, closed)
}

/// A house that knows the kettle.
async fn house(folder: &tempfile::TempDir) -> (House, ThreadKey, Arc<dyn Checkpointer>) {
    let mut house = House::open(folder.path()).await.unwrap();
    let acme = tenant("acme");
    house.ingest_text(&acme, "kettle", KETTLE).await.unwrap();
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    house.chat = chat(&house.services, &store);
    (house, session(&acme, "s1"), store)
}

#[tokio::test]
async fn a_chat_is_replayed_with_its_nodes_and_asks_no_service() {
    let folder = tempfile::tempdir().unwrap();
    let (house, thread, store) = house(&folder).await;
    let first = house.ask(&thread, "how long is the warranty?").await.unwrap();
    assert!(first.answer().unwrap().text.contains("36 months"));
    let second = house.ask(&thread, "who won the cup in 1998?").await.unwrap();
    assert_eq!(second.answer().unwrap().text, FALLBACK);
    house.ask(&thread, "how much does the kettle hold?").await.unwrap();

    let (services, counted) = closed(&house.services);
    let today = chat(&services, &store);
    let replayed = today
        .replay(&thread)
        .bodies()
        .provide(settings(counted.clone()))
        .await
        .unwrap();
    assert_eq!(replayed.divergence, None, "{replayed}");
    assert_eq!(replayed.bodies, 9, "three nodes a turn");
    assert_eq!(counted.calls(), 0);
    assert_eq!(
        house
            .services
            .log
            .session(&thread.tenant, "s1", 10)
            .await
            .unwrap()
            .len(),
        3,
        "nothing is logged again"
    );

    // The same services are asked where the graph runs.
    let asked = house.message(&thread, "how long is the warranty?", counted.clone());
    asked.await.unwrap_err();
    assert_eq!(counted.calls(), 1);
}

#[tokio::test]
async fn a_search_that_failed_fails_again_in_a_replay_although_the_service_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut house, thread, store) = house(&folder).await;
    let healthy = house.services.clone();
    let (services, counted) = closed(&healthy);
    house.chat = chat(
        &Services {
            log: healthy.log.clone(),
            ..services
        },
        &store,
    );
    house.ask(&thread, "how long is the warranty?").await.unwrap();
    assert_eq!(counted.calls(), 1, "the search");

    let today = chat(&healthy, &store);
    let replayed = today
        .replay(&thread)
        .bodies()
        .provide(settings(Arc::new(Extractive)))
        .await
        .unwrap();
    assert_eq!(replayed.divergence, None, "{replayed}");
    assert_eq!(replayed.bodies, 3);
}

#[tokio::test]
async fn a_changed_prompt_is_the_divergence_that_a_replay_tells() {
    let folder = tempfile::tempdir().unwrap();
    let (house, thread, store) = house(&folder).await;
    house.ask(&thread, "how long is the warranty?").await.unwrap();

    let (services, counted) = closed(&house.services);
    let today = chat(&services, &store);
    let outputs = today.replay(&thread).await.unwrap();
    assert_eq!(outputs.divergence, None, "the outputs alone");
    let changed = ChatSettings {
        system_prompt: Some("Answer like a pirate.".to_owned()),
        ..settings(counted.clone())
    };
    let replayed = today.replay(&thread).bodies().provide(changed).await.unwrap();
    let divergence = replayed.divergence.unwrap();
    let Difference::Called {
        task,
        service,
        number,
        recorded,
        replayed,
    } = &divergence.difference
    else {
        panic!("{divergence}");
    };
    assert_eq!(
        (task.as_str(), service.as_str(), *number),
        ("generate", "chat model", 0)
    );
    assert!(replayed.to_string().contains("like a pirate"), "{replayed}");
    let recorded = recorded.as_ref().unwrap();
    assert_eq!(recorded.0, "chat model");
    assert!(
        recorded
            .1
            .as_ref()
            .is_some_and(|was| !was.to_string().contains("like a pirate")),
        "{recorded:?}"
    );
    assert_eq!(counted.calls(), 0);
}
